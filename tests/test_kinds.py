"""Unlike modalities in one model: a picture and a word, under every posterior."""

import pytest
import torch
from tiny_models import FEATURE, LATENT, rng, stir

from shala_lite import kinds
from shala_lite.likelihood import log_likelihood
from shala_lite.modalities import Modality
from shala_lite.model import VARIANTS, load_vae, make_vae, save_vae
from shala_lite.vocabulary import Vocabulary

PICTURE = Modality("picture", (1, 8, 8))
WORD = Modality("word", (5,), "text", Vocabulary((" ", "a", "b", "c"), ""))


def observed(n=12, seed=0):
    return {
        "picture": torch.rand(n, 1, 8, 8, generator=rng(seed)),
        "word": torch.randint(4, (n, 5), generator=rng(seed + 1)),
    }


def vae_of(variant="concat", **options):
    sizes = dict(latent_dim=LATENT, feature_dim=FEATURE, hidden=7, widths=(3, 4), text_width=6)
    if variant == "mmvaeplus":
        sizes["private_dim"] = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = make_vae(variant, (PICTURE, WORD), **(sizes | options))
    return stir(vae).eval()


def test_the_likelihood_of_a_text_is_that_of_independent_categories():
    logits = torch.randn(7, 5, 4, generator=rng())
    x = torch.randint(4, (7, 5), generator=rng(1))
    expected = torch.distributions.Categorical(logits=logits).log_prob(x).sum(1)
    torch.testing.assert_close(kinds.log_likelihood(WORD, x, logits, 0.1), expected)
    torch.testing.assert_close(kinds.log_likelihood(WORD, x.short(), logits, 0.1), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_model_takes_pictures_and_words(variant):
    vae, x = vae_of(variant), observed()
    terms = vae.train().loss(x, generator=rng())
    terms["loss"].backward()
    for name in vae.names:
        assert any(p.grad is not None and p.grad.any() for p in vae.encoders[name].parameters())
        assert any(p.grad is not None and p.grad.any() for p in vae.decoders[name].parameters())
    vae.eval()
    z = vae.generator_of(vae.features({"picture": x["picture"]})).sample(rng())
    said = vae.decode(z)
    assert said["word"].shape == (12, 5)
    assert said["word"].dtype == torch.int64
    assert not torch.equal(said["word"], vae.decode(z, rng())["word"])
    assert torch.equal(said["picture"], vae.decode(z, rng())["picture"])
    assert log_likelihood(vae, x, samples=2, generator=rng()).isfinite().all()


@pytest.mark.parametrize("variant", ["concat", "mopoe"])
def test_a_word_that_is_absent_changes_nothing(variant):
    vae, x = vae_of(variant), observed()
    present = torch.ones(12, 2, dtype=torch.bool)
    present[::3, 1] = False
    other = x | {"word": torch.where(present[:, 1:], x["word"], 3)}
    first, second = (vae.elbo(given, present, generator=rng()) for given in (x, other))
    assert all(torch.equal(first[key], second[key]) for key in first)
    vae.train()
    losses = [vae.loss(given, present, generator=rng())["loss"] for given in (x, other)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_of_likelihoods_change_what_is_trained_and_not_the_bound(variant):
    x = observed()
    plain, weighted = vae_of(variant), vae_of(variant, likelihood_weights={"word": 5.0})
    one, other = (vae.elbo(x, generator=rng()) for vae in (plain, weighted))
    assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (vae.loss(x, generator=rng()) for vae in (plain, weighted))
    assert torch.equal(one["log_likelihood/word"], other["log_likelihood/word"])
    assert not torch.equal(one["loss"], other["loss"])
    if variant in ("concat", "mopoe"):  # one term of each likelihood, so the change is known
        gap = one["loss"] - other["loss"]
        torch.testing.assert_close(gap, 4 * one["log_likelihood/word"], atol=1e-3, rtol=1e-4)


def test_a_weight_of_one_is_none():
    x = observed()
    losses = [
        vae_of("moe", likelihood_weights=weights).loss(x, generator=rng())["loss"]
        for weights in (None, {"word": 1.0, "picture": 1.0}, (("word", 1.0),))
    ]
    assert losses[0] == losses[1] == losses[2]


def test_a_model_of_words_is_saved_and_loaded(tmp_path):
    vae, x = vae_of(likelihood_weights={"word": 2.0}), observed()
    save_vae(vae, tmp_path)
    loaded = load_vae(tmp_path)
    assert loaded.modalities == vae.modalities
    assert loaded.config == vae.config
    z = torch.randn(4, LATENT, generator=rng())
    assert torch.equal(loaded.decode(z)["word"], vae.decode(z)["word"])
    assert torch.equal(loaded.features(x)["word"], vae.features(x)["word"])


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        (torch.full((12, 5), 4), r"x\['word'\]: an id of no token in 12 of 12.*from 0 to 3"),
        (torch.full((12, 5), -1), "an id of no token"),
        (torch.zeros(12, 5), r"x\['word'\]: dtype torch.float32, expected token ids"),
        (torch.zeros(12, 5, dtype=torch.bool), "dtype torch.bool"),
        (torch.zeros(12, 4, dtype=torch.int64), r"expected \(B, 5\)"),
    ],
)
def test_a_bad_text_is_named(word, complaint):
    with pytest.raises(ValueError, match=complaint):
        vae_of().features(observed() | {"word": word})


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("draws", [(), (3,), (2, 2)])
def test_the_likelihood_of_several_draws_is_that_of_each(shared, draws):
    vae, x = vae_of(shared_nets=shared), observed(n=5)
    z = torch.randn(*draws, 5, LATENT, generator=rng())
    found = vae.log_likelihoods(x, z)["word"]
    assert found.shape == (*draws, 5)
    for place, one in zip(found.view(-1, 5), z.view(-1, 5, LATENT), strict=True):
        logits = vae.decoders["word"](one, x["word"])
        expected = torch.distributions.Categorical(logits=logits).log_prob(x["word"]).sum(1)
        torch.testing.assert_close(place, expected)


@pytest.mark.parametrize("weights", [{"smell": 1.0}, {"word": -1.0}])
def test_bad_weights_are_named(weights):
    with pytest.raises(ValueError, match=r"likelihood_weights: .*expected numbers of at least 0"):
        vae_of(likelihood_weights=weights)
