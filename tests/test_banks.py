"""Banks of encoders and decoders: one interface, whoever shares what with whom."""

import pytest
import torch

from shala_lite.banks import make_decoders, make_encoders
from shala_lite.fused import FusedVAE
from shala_lite.modalities import Modality
from shala_lite.vocabulary import Vocabulary

VIEWS = tuple(Modality(f"view{k}", (4, 8, 8)) for k in range(3))
WORD = Modality("word", (5,), "text", Vocabulary(("a", "b"), ""))  # letters: no padding ends it
MODALITIES = (*VIEWS, WORD, Modality("small", (1, 8, 8)))
NAMES = [m.name for m in MODALITIES]
CONFIG = dict(
    feature_dim=12,
    widths=[4, 8],
    residual=0,
    text_width=8,
    decoder="layered",
    decoder_layers=3,
    decoder_stride=2,
    decoder_hidden=16,
    mask_sharpness=1.0,
)
both = pytest.mark.parametrize("shared", [False, True])


def config(shared):
    return CONFIG | {"shared_nets": shared}


def observed(count=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = {m.name: torch.rand(count, *m.shape, generator=draw) for m in MODALITIES}
    tokens = len(WORD.vocabulary)
    return x | {"word": torch.randint(tokens, (count, *WORD.shape), generator=draw)}


def encoders(shared, modalities=MODALITIES):
    torch.manual_seed(0)
    return make_encoders(modalities, config(shared))


def decoders(shared, modalities=MODALITIES):
    torch.manual_seed(0)
    return make_decoders(modalities, 7, config(shared))


def size(module):
    return sum(p.numel() for p in module.parameters())


@both
def test_all_at_once_is_one_after_the_other(shared):
    x, z = observed(), torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    bank = encoders(shared).eval()
    found = bank(x)
    assert list(found) == NAMES
    for name in NAMES:
        assert found[name].shape == (6, 12)
        torch.testing.assert_close(found[name], bank[name](x[name]), atol=1e-5, rtol=1e-4)
    bank = decoders(shared).eval()
    asked = {"word": x["word"]}
    said, shown = (
        dict(bank(dict.fromkeys(NAMES, z), asked)),
        dict(bank.shown(dict.fromkeys(NAMES, z))),
    )
    assert set(said) == set(shown) == set(NAMES)
    for m in MODALITIES:
        assert said[m.name].shape[:-1] == (6, *m.shape)[: said[m.name].ndim - 1]
        assert shown[m.name].shape == (6, *m.shape)
        told = [asked[m.name]] if m.name in asked else []
        torch.testing.assert_close(said[m.name], bank[m.name](z, *told), atol=1e-5, rtol=1e-4)
    assert torch.equal(shown["view1"], said["view1"])
    written = bank["word"](z, shown["word"])
    assert torch.equal(written.argmax(-1), shown["word"])


@both
def test_any_subset_will_do_and_the_order_of_the_asking_does_not_matter(shared):
    x, bank = observed(), encoders(shared).eval()
    some = {"small": x["small"], "view1": x["view1"]}
    found = bank(some)
    assert list(found) == ["view1", "small"]
    for name in some:
        torch.testing.assert_close(found[name], bank(x)[name], atol=1e-5, rtol=1e-4)


@both
def test_the_absent_reach_nothing_not_even_batch_statistics(shared):
    x, present = observed(), torch.ones(6, 5, dtype=torch.bool)
    present[:3, 0], present[:, 3] = False, False
    other = {name: torch.zeros_like(seen) for name, seen in x.items()}
    other = {n: torch.where(_at(present, n, x[n]), x[n], other[n]) for n in NAMES}
    first, second = encoders(shared).train(), encoders(shared).train()
    for name, (one, two) in _pairs(first(x, present), second(other, present)):
        torch.testing.assert_close(one, two, msg=name)
        absent = ~present[:, NAMES.index(name)]
        assert not one[absent].any()
        assert one[~absent].ne(0).all(1).all()
    for one, two in zip(first.buffers(), second.buffers()):
        assert torch.equal(one, two)


def _at(present, name, like):
    return present[:, NAMES.index(name)].view(-1, *[1] * (like.ndim - 1))


def _pairs(one, two):
    assert list(one) == list(two) == NAMES
    return [(name, (one[name], two[name])) for name in NAMES]


@pytest.mark.parametrize("make", [encoders, decoders])
def test_shared_nets_do_not_grow_with_the_number_of_views(make):
    more = tuple(Modality(f"view{k}", (4, 8, 8)) for k in range(9))
    grown = size(make(True, more)) - size(make(True, VIEWS))
    assert grown == 16 * 6  # a vector for each
    assert size(make(False, more)) == 3 * size(make(False, VIEWS))


def test_only_what_looks_alike_shares():
    assert set(encoders(True).nets) == {"view0", "word", "small"}
    assert set(decoders(True).nets) == {"view0", "word", "small"}


def test_a_shared_net_knows_which_view_it_is_asked_for():
    x, z = torch.rand(6, 4, 8, 8), torch.randn(6, 7)
    first, second = encoders(True).eval(), decoders(True).eval()
    assert not torch.allclose(first["view0"](x), first["view1"](x))
    assert not torch.allclose(second["view0"](z), second["view1"](z))


@both
def test_one_item_alone_passes_in_training(shared):
    x = observed(1)
    assert all(h.isfinite().all() for h in encoders(shared).train()(x).values())
    bank, z = decoders(shared).train(), dict.fromkeys(NAMES, torch.randn(1, 7))
    assert set(dict(bank.shown(z))) == set(NAMES)
    said = dict(bank(z, {"word": x["word"][:1]}))
    assert all(image.isfinite().all() for image in said.values())


@both
def test_every_parameter_learns_in_a_model(shared):
    torch.manual_seed(0)
    sizes = {k: v for k, v in CONFIG.items() if k != "residual"}
    vae = FusedVAE(MODALITIES, latent_dim=7, shared_nets=shared, alignment=1.0, **sizes)
    vae.loss(observed(), generator=torch.Generator().manual_seed(0))["loss"].backward()
    for bank in (vae.encoders, vae.decoders):
        still = [name for name, p in bank.named_parameters() if p.grad is None or not p.grad.any()]
        assert not still


@both
def test_what_is_asked_is_what_all_rows_would_say(shared):
    bank, x = decoders(shared).eval(), observed()
    z = {name: torch.randn(12, 7, generator=torch.Generator().manual_seed(2)) for name in NAMES}
    asked = {name: torch.arange(12) % 3 != at for at, name in enumerate(NAMES[:3])}
    asked |= {"word": torch.arange(12) % 2 == 0, "small": torch.zeros(12, dtype=torch.bool)}
    every = dict(bank(z, {"word": x["word"].repeat(2, 1)}))
    found = {
        name: (said, rows) for name, said, rows in bank.of_asked(z, {"word": x["word"]}, asked)
    }
    assert set(found) == set(NAMES) - {"small"}
    for name, (said, rows) in found.items():
        expected = every[name] if rows is None else every[name][rows]
        torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-4)
        assert rows is None or torch.equal(rows, asked[name].nonzero()[:, 0])
