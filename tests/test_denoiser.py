"""The denoiser: starts at zero, knows its condition, and is blind to what is absent."""

from functools import partial

import pytest
import torch
from tiny_models import FEATURE, LATENT, NAMES, rng, stir, tiny_features

from shala_lite.denoiser import DENOISERS, Block, MLPBlock, SubsetEmbedding, TimeEmbedding

EVERYTHING = torch.ones(12, 3, dtype=torch.bool)
SIZES = {
    "transformer": dict(width=8, depth=2, tokens=3, heads=2),
    "mlp": dict(width=8, depth=2),
}


def build(kind, stirred=True, names=NAMES, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = DENOISERS[kind](LATENT, names, FEATURE, **(SIZES[kind] | options))
    return stir(net) if stirred else net


@pytest.fixture(params=DENOISERS)
def denoiser(request):
    """Makes denoisers of each kind; every law below holds for all of them."""
    return partial(build, request.param)


def inputs(n=12, seed=0):
    generator = rng(seed)
    return torch.randn(n, LATENT, generator=generator), torch.rand(n, generator=generator)


def some_present(seed=0):
    return torch.rand(12, 3, generator=rng(seed)) < 0.5


def test_it_starts_at_zero_whatever_its_input(denoiser):
    out = denoiser(stirred=False)(*inputs(), tiny_features(), EVERYTHING)
    assert out.shape == (12, LATENT)
    assert not out.any()


@pytest.mark.parametrize(
    ("block", "shape"), [(Block(8, 2), (4, 3, 8)), (MLPBlock(8), (4, 8))], ids=["attention", "mlp"]
)
def test_blocks_start_as_the_identity_and_condition_opens_them(block, shape):
    x = torch.randn(*shape, generator=rng())
    condition = torch.randn(4, 8, generator=rng(1))
    assert torch.equal(block(x, condition), x)
    stir(block)
    assert not torch.allclose(block(x, condition), x, atol=0.1)
    assert not torch.allclose(block(x, condition), block(x, -condition), atol=0.1)


def test_attention_is_softmax_of_scaled_products():
    block, x = stir(Block(8, 2)), torch.randn(4, 3, 8, generator=rng())
    q, k, v = (part.unflatten(-1, (2, 4)) for part in block.qkv(x).chunk(3, dim=-1))
    weights = (torch.einsum("bihd,bjhd->bhij", q, k) / 4**0.5).softmax(-1)
    expected = block.out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
    torch.testing.assert_close(block.attend(x), expected)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_absent_features_have_exactly_no_influence(junk, denoiser):
    net, features, present = denoiser(), tiny_features(), some_present()
    spoiled = {
        name: torch.where(present[:, i, None], h, junk)
        for i, (name, h) in enumerate(features.items())
    }
    expected = net(*inputs(), features, present)
    assert torch.equal(net(*inputs(), spoiled, present), expected)
    for i, name in enumerate(NAMES):  # nor has leaving out a modality that no item has
        gone = present.clone()
        gone[:, i] = False
        others = {other: h for other, h in features.items() if other != name}
        assert torch.equal(net(*inputs(), others, gone), net(*inputs(), features, gone))


def test_present_features_and_time_have_influence(denoiser):
    net, features, present = denoiser(), tiny_features(), some_present()
    (z, t), out = inputs(), denoiser()(*inputs(), features, present)
    for i, name in enumerate(NAMES):
        moved = net(z, t, features | {name: features[name] + 1}, present)
        assert torch.equal((moved != out).any(1), present[:, i])
    assert (net(z, t / 2, features, present) != out).any(1).all()


def test_no_features_is_nothing_present(denoiser):
    net = denoiser()
    nothing = net(*inputs(), tiny_features(), ~EVERYTHING)
    assert torch.equal(net(*inputs(), {}, ~EVERYTHING), nothing)
    assert torch.equal(net(*inputs(), {}, EVERYTHING), nothing)  # nothing there to use
    assert not torch.allclose(net(*inputs(), tiny_features(), EVERYTHING), nothing)


def test_a_hint_is_part_of_the_condition_and_a_hint_of_zero_is_none(denoiser):
    net, features = denoiser(), tiny_features()
    out, hint = net(*inputs(), features, EVERYTHING), torch.ones(12, 8)
    assert torch.equal(net(*inputs(), features, EVERYTHING, 0 * hint), out)
    hint[6:] = 0
    changed = (net(*inputs(), features, EVERYTHING, hint) != out).any(1)
    assert torch.equal(changed, torch.arange(12) < 6)


def test_present_zeros_are_not_the_same_as_absent(denoiser):
    """A feature may happen to be zero: that still says something."""
    net, zeros = denoiser(), {"a": torch.zeros(12, FEATURE)}
    out = net(*inputs(), zeros, EVERYTHING)
    assert not torch.allclose(out, net(*inputs(), zeros, ~EVERYTHING))


def test_the_order_of_a_dict_is_irrelevant(denoiser):
    net, features, present = denoiser(), tiny_features(), some_present()
    turned = {name: features[name] for name in "cab"}
    assert torch.equal(net(*inputs(), turned, present), net(*inputs(), features, present))


def test_listing_the_modalities_in_another_order_changes_nothing(denoiser):
    net, other = denoiser(), denoiser(names="cab")
    other.load_state_dict(net.state_dict())
    features, present = tiny_features(), some_present()
    found = other(*inputs(), features, present[:, [2, 0, 1]])
    torch.testing.assert_close(found, net(*inputs(), features, present))


def test_items_are_independent(denoiser):
    net, features, present = denoiser(), tiny_features(), some_present()
    z, t = inputs()
    order = torch.randperm(12, generator=rng(1))
    shuffled = {name: h[order] for name, h in features.items()}
    found = net(z[order], t[order], shuffled, present[order])
    torch.testing.assert_close(found, net(z, t, features, present)[order])


def test_every_number_of_the_output_depends_on_every_number_of_the_latent(denoiser):
    """Tokens attend to one another, and linear layers mix."""
    net = denoiser()
    z, t = inputs(1)
    one = {name: h[:1] for name, h in tiny_features().items()}
    jacobian = torch.autograd.functional.jacobian(lambda z: net(z, t, one, EVERYTHING[:1]), z)
    assert (jacobian != 0).all()


def test_every_parameter_learns(denoiser):
    net = denoiser()
    net(*inputs(), tiny_features(), some_present()).square().sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize(("tokens", "heads"), [(1, 1), (2, 4), (6, 8)])
def test_any_divisor_makes_tokens_and_heads(tokens, heads):
    net = build("transformer", tokens=tokens, heads=heads)
    assert net.position.shape == (tokens, 8)
    assert net(*inputs(), tiny_features(), EVERYTHING).shape == (12, LATENT)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tokens": 4}, "tokens: 4, .*latent_dim 6"), ({"heads": 3}, "heads: 3, .*width 8")],
)
def test_what_does_not_divide_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build("transformer", **options)


def test_times_are_told_apart_close_and_far():
    embedding = stir(TimeEmbedding(16))
    times = torch.linspace(0, 1, 101)
    distances = torch.cdist(embedding(times), embedding(times))
    assert distances[~torch.eye(101, dtype=torch.bool)].min() > 0.01


def test_the_subset_embedding_sees_the_subset_and_not_only_its_sum():
    embedding = stir(SubsetEmbedding(NAMES, FEATURE, 8))
    h = torch.randn(1, FEATURE, generator=rng())
    as_a, as_b = (embedding({name: h}, EVERYTHING[:1]) for name in "ab")
    assert not torch.allclose(as_a, as_b)


def test_output_is_full_precision_when_the_layers_are_not(denoiser):
    net = denoiser()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(*inputs(), tiny_features(), EVERYTHING).dtype == torch.float32
