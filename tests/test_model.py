"""Both stages as one model: what is saved is what is loaded, and seeds fix every byte."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import (
    FEATURE,
    LATENT,
    NAMES,
    rng,
    stir,
    tiny_images,
    tiny_latents,
    tiny_prior,
    tiny_vae,
)

from shala_lite.flow_map import FlowMap
from shala_lite.modalities import Modality
from shala_lite.model import (
    ShaLa,
    load_flow_map,
    load_prior,
    load_vae,
    make_vae,
    save_flow_map,
    save_prior,
    save_vae,
)
from shala_lite.vocabulary import UNKNOWN, Vocabulary

LETTERS = Vocabulary((" ", *"enotw"), "")


def tiny_model(vae_options=None, prior_options=None):
    prior = tiny_prior(**(prior_options or {}))
    prior.standardise(tiny_latents())
    return ShaLa(tiny_vae(**(vae_options or {})), prior)


def speaking_model(vocabulary=LETTERS):
    """A picture and a text of four tokens."""
    modalities = (Modality("digit", (2, 8, 8)), Modality("word", (4,), "text", vocabulary))
    sizes = dict(latent_dim=LATENT, feature_dim=FEATURE, hidden=7, widths=(3, 4), text_width=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = make_vae("concat", modalities, **sizes)
    prior = tiny_prior(("digit", "word"))
    prior.standardise(tiny_latents(names=("digit", "word")))
    return ShaLa(stir(vae), prior)


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name])


def contents(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("decoder", "denoiser"), [("convolutional", "transformer"), ("layered", "mlp")]
)
def test_load_undoes_save(tmp_path, decoder, denoiser):
    options = dict(
        decoder=decoder,
        decoder_hidden=9,
        alignment=0.5,
        beta=2.0,
        residual=1,
        widths=(4, 6),
        depth=2,
    )
    settings = dict(
        denoiser=denoiser,
        guide_width=4,
        schedule="variance_preserving",
        parametrisation="noise",
        none=0.1,
        one=0.7,
        tokens=2,
    )
    model = tiny_model(options, settings)
    model.save(tmp_path)
    loaded = ShaLa.load(tmp_path)
    assert loaded.vae.modalities == model.vae.modalities
    assert loaded.vae.config == model.vae.config
    assert loaded.prior.config == model.prior.config
    assert_equal(loaded.vae.state_dict(), model.vae.state_dict())
    assert_equal(loaded.prior.state_dict(), model.prior.state_dict())
    for one, other in [(loaded.vae, model.vae), (loaded.prior, model.prior)]:
        assert not one.training
        assert vars(one).keys() == vars(other).keys()
    assert loaded.vae.beta == 2.0
    assert loaded.prior.one == 0.7


def test_a_loaded_model_gives_the_same_bytes(tmp_path):
    model, x = tiny_model(), tiny_images(5)
    model.save(tmp_path)
    loaded = ShaLa.load(str(tmp_path))
    options = dict(steps=3, guidance=2.0)
    assert_equal(
        loaded.translate(x, **options, generator=rng()),
        model.translate(x, **options, generator=rng()),
    )
    assert_equal(
        loaded.generate(5, steps=3, generator=rng()), model.generate(5, steps=3, generator=rng())
    )


def test_saving_what_was_loaded_gives_the_same_files(tmp_path):
    tiny_model().save(tmp_path / "one")
    ShaLa.load(tmp_path / "one").save(tmp_path / "two")
    files = contents(tmp_path / "one")
    assert files == contents(tmp_path / "two")
    stages = {"vae.json", "vae.safetensors", "prior.json", "prior.safetensors"}
    assert set(files) == {*stages, "model.json"}


def test_stages_that_were_not_saved_together_are_refused(tmp_path):
    """As a kill between the two leaves them: sizes and names agree, the latent space does not."""
    tiny_model().save(tmp_path)
    stir(vae := tiny_vae(), seed=5)
    save_vae(vae, tmp_path)
    with pytest.raises(ValueError, match=r"folder: \['vae.safetensors'\] of .* changed after"):
        ShaLa.load(tmp_path)


def tiny_flow_map():
    """Stirred apart from its teacher, and in its own order of modalities."""
    prior = tiny_prior("cab", guide_width=4, schedule="variance_preserving")
    prior.standardise(tiny_latents())
    flow_map = FlowMap(prior, guidance=2.5, teacher_steps=3, whole=0.5).eval()
    stir(flow_map.student, seed=1), stir(flow_map.span, seed=2)
    return flow_map


def test_load_undoes_save_of_a_flow_map_and_it_can_be_trained_on(tmp_path):
    flow_map, latents = tiny_flow_map(), tiny_latents(names="cab")
    save_flow_map(flow_map, tmp_path / "one")
    loaded = load_flow_map(tmp_path / "one")
    assert loaded.config == flow_map.config
    assert loaded.teacher.config == flow_map.teacher.config
    assert (loaded.names, loaded.training) == (("c", "a", "b"), False)
    assert_equal(loaded.state_dict(), flow_map.state_dict())
    found, expected = (f.sample(64, latents.features, generator=rng()) for f in (loaded, flow_map))
    assert torch.equal(found.z, expected.z)
    batch = latents.batch(torch.arange(64))
    assert_equal(loaded.loss(**batch, generator=rng()), flow_map.loss(**batch, generator=rng()))
    save_flow_map(loaded, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(contents(tmp_path / "one")) == {"flow_map.json", "flow_map.safetensors"}


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    tiny_model().save(tmp_path)
    save_flow_map(tiny_flow_map(), tmp_path)
    before = torch.random.get_rng_state()
    ShaLa.load(tmp_path)
    load_flow_map(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_that_is_saved_is_a_pickle(tmp_path):
    """safetensors: 8 bytes of length, then JSON; a pickle or a zip of them starts otherwise."""
    tiny_model().save(tmp_path)
    for name, content in contents(tmp_path).items():
        if name.endswith(".json"):
            assert json.loads(content)["format"] == 2
        else:
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            sizes = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
            assert max(sizes) + 8 + length == len(content)


def test_a_model_is_loaded_in_its_own_order_of_modalities(tmp_path):
    model = tiny_model(dict(names="cab"), dict(names="cab"))
    model.save(tmp_path)
    assert ShaLa.load(tmp_path).vae.names == ("c", "a", "b")


def test_generation_is_a_sample_of_the_prior_decoded():
    model = tiny_model()
    images = model.generate(4, steps=3, sampler="euler", generator=rng())
    z = model.prior.sample(4, steps=3, sampler="euler", generator=rng()).z
    assert_equal(images, model.vae.decode(z))
    assert all(x.shape == (4, 2, 8, 8) and not x.requires_grad for x in images.values())


def test_translation_is_a_sample_given_the_features_decoded():
    model, x = tiny_model(), tiny_images(4, "ac")
    images = model.translate(x, steps=3, guidance=2.0, generator=rng())
    assert list(images) == list(NAMES)
    features = model.vae.features(x)
    z = model.prior.sample(4, features, steps=3, guidance=2.0, generator=rng()).z
    assert_equal(images, model.vae.decode(z))
    assert not any(image.requires_grad for image in images.values())


def test_same_seed_same_bytes_and_the_global_state_is_left_alone():
    model, x = tiny_model(), tiny_images(4)
    before = torch.random.get_rng_state()
    for act in (
        lambda generator: model.generate(4, steps=2, generator=generator),
        lambda generator: model.translate(x, steps=2, guidance=1.5, generator=generator),
    ):
        assert_equal(act(rng(1)), act(rng(1)))
        assert not torch.equal(act(rng(1))["a"], act(rng(2))["a"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_order_of_a_dict_is_irrelevant():
    model, x = tiny_model(), tiny_images(4)
    turned = {name: x[name] for name in "bca"}
    assert_equal(
        model.translate(turned, steps=2, generator=rng()),
        model.translate(x, steps=2, generator=rng()),
    )


def test_every_modality_that_is_given_has_a_say():
    model, x = tiny_model(), tiny_images(4)
    images = model.translate(x, steps=2, generator=rng())
    for name in NAMES:
        other = model.translate(x | {name: 1 - x[name]}, steps=2, generator=rng())
        assert not torch.allclose(other["a"], images["a"])


def test_stages_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"prior: modalities .*'b', 'a'.*expected.*'a', 'b'"):
        ShaLa(tiny_vae("ab"), tiny_prior("ba"))
    with pytest.raises(ValueError, match="prior: latent_dim 9, expected the vae's 6"):
        ShaLa(tiny_vae(), tiny_prior(latent_dim=9))
    with pytest.raises(ValueError, match="prior: feature_dim 4, expected the vae's 5"):
        ShaLa(tiny_vae(), tiny_prior(feature_dim=4))


def test_translating_nothing_is_refused():
    with pytest.raises(ValueError, match="x: empty"):
        tiny_model().translate({})


@pytest.mark.parametrize("seen", [torch.rand(2, 2, 8, 8), ["two", "one"]])
def test_translating_what_is_no_modality_is_refused_by_name(seen):
    expected = r"x: unknown modalities \['nope'\], expected among \['digit', 'word'\]"
    with pytest.raises(KeyError, match=expected):
        speaking_model().translate({"nope": seen})
    with pytest.raises(KeyError, match=expected):
        speaking_model().translate({"word": ["two", "one"], "nope": seen})


def test_a_text_is_given_as_strings_or_as_their_ids():
    model, texts = speaking_model(), ["two", " one", "", "toe"]
    ids = torch.tensor([[4, 5, 3, 0], [0, 3, 2, 1], [0, 0, 0, 0], [4, 3, 1, 0]])
    images = tiny_images(4, ["digit"])
    asked = dict(steps=2, guidance=2.0)
    for beside in ({}, images):
        expected = model.translate({**beside, "word": ids}, **asked, generator=rng())
        for said in (texts, tuple(texts)):
            x = {"word": said, **beside}
            assert_equal(model.translate(x, **asked, generator=rng()), expected)
            assert x["word"] is said
        other = model.translate({**beside, "word": texts[::-1]}, **asked, generator=rng())
        assert not torch.equal(other["digit"], expected["digit"])


def test_a_word_that_is_no_token_is_an_unknown_one_where_there_is_such_a_token():
    model = speaking_model(Vocabulary(("<pad>", UNKNOWN, "red", "bird")))
    ids = torch.tensor([[2, 1, 3, 0]])
    expected = model.translate({"word": ids}, steps=2, generator=rng())
    assert_equal(model.translate({"word": ["Red, odd bird."]}, steps=2, generator=rng()), expected)


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (
            {"word": ["one", "ten", "six"]},
            r"x\['word'\]\[2\]: 's' in 'six' is no token, .*'e', 'n'",
        ),
        ({"word": "two"}, r"x\['word'\]: 'two', expected a list of strings or a tensor of token"),
        ({"word": ["two", 1]}, r"x\['word'\]: \['two', 1\], expected a list of strings"),
        ({"word": [[4, 5, 3, 0]]}, r"x\['word'\]: \[\[4, 5, 3, 0\]\], expected a list of str"),
        ({"word": None}, r"x\['word'\]: None, expected a list of strings"),
        ({"word": []}, r"x\['word'\]: shape \(0, 4\), expected \(B, 4\)"),
        ({"digit": ["two"]}, r"x\['digit'\]: list, expected a tensor of pixels"),
        ({"word": ["two"], "digit": [0.5]}, r"x\['digit'\]: list, expected a tensor of pixels"),
        ({"word": ["two"], "digit": torch.rand(2, 2, 8, 8)}, r"x\['word'\]: shape \(1, 4\), exp"),
    ],
)
def test_what_is_no_observation_is_refused_by_name(x, complaint):
    with pytest.raises(ValueError, match=complaint):
        speaking_model().translate(x, steps=1)


def test_words_are_the_likeliest_or_drawn_and_pictures_do_not_depend_on_it():
    model, n = speaking_model(), 40
    x = {"digit": torch.rand(n, 2, 8, 8, generator=rng(3))}
    h = model.vae.features(x)
    for act, z in (
        (
            lambda **of: model.generate(n, steps=2, generator=rng(1), **of),
            model.prior.sample(n, steps=2, generator=rng(1)).z,
        ),
        (
            lambda **of: model.translate(x, steps=2, generator=rng(1), **of),
            model.prior.sample(n, h, steps=2, generator=rng(1)).z,
        ),
    ):
        greedy, drawn = act(), act(text_generator=rng(5))
        assert_equal(greedy, model.vae.decode(z))
        assert_equal(drawn, model.vae.decode(z, rng(5)))
        assert_equal(drawn, act(text_generator=rng(5)))
        assert torch.equal(greedy["digit"], drawn["digit"])
        assert not torch.equal(greedy["word"], drawn["word"])
        assert not torch.equal(act(text_generator=rng(6))["word"], drawn["word"])


def test_one_generator_may_draw_both_latents_and_words():
    model, one = speaking_model(), rng(1)
    found = model.generate(20, steps=2, generator=one, text_generator=one)
    one = rng(1)
    z = model.prior.sample(20, steps=2, generator=one).z
    assert_equal(found, model.vae.decode(z, one))


def test_a_folder_without_a_model_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} holds no model\.json"):
        ShaLa.load(tmp_path)
    for load, name in ((load_vae, "vae"), (load_prior, "prior")):
        with pytest.raises(FileNotFoundError, match=rf"{tmp_path} holds no {name}\.json"):
            load(tmp_path)
    ShaLa(tiny_vae(), tiny_prior()).save(tmp_path)
    (tmp_path / "prior.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"prior\.safetensors"):
        ShaLa.load(tmp_path)


def test_a_model_of_another_format_is_a_clear_error(tmp_path):
    save_vae(tiny_vae(), tmp_path)
    config = json.loads((tmp_path / "vae.json").read_text())
    for other in (config | {"format": 0}, {k: v for k, v in config.items() if k != "format"}):
        (tmp_path / "vae.json").write_text(json.dumps(other))
        with pytest.raises(ValueError, match=r"vae\.json: not of format 2"):
            load_vae(tmp_path)


def test_one_stage_alone_is_saved_and_loaded(tmp_path):
    prior = tiny_prior()
    prior.standardise(tiny_latents())
    save_prior(prior, tmp_path / "deep" / "folder")
    assert_equal(load_prior(tmp_path / "deep" / "folder").state_dict(), prior.state_dict())
