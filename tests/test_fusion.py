"""Fusion: absent features have no say, and no modality has a privileged place."""

import pytest
import torch
from tiny_models import rng, stir
from torch import nn

from shala_lite.distributions import MAX_STD, MIN_STD, DiagonalGaussian
from shala_lite.fusion import FUSIONS

M, D, Z = 3, 5, 4


def fusion(depth=4, seed=0, kind="concat"):
    return stir(FUSIONS[kind](M, D, Z, depth=depth, hidden=7), seed).eval()


def features(n=16, seed=0):
    return torch.randn(n, M, D, generator=rng(seed))


def masks(n=16, seed=0):
    return torch.rand(n, M, generator=rng(seed)) < 0.5


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_the_value_of_an_absent_feature_is_irrelevant(junk, training, kind):
    net, h, present = fusion(kind=kind).train(training), features(), masks()
    spoiled = torch.where(present[..., None], h, junk)
    for found, expected in zip(net(spoiled, present), net(h, present)):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["concat", "sum"])
def test_an_absent_feature_is_its_stand_in(kind):
    net, h, present = fusion(kind=kind), features(), masks()
    filled = torch.where(present[..., None], h, net.absent)
    everything = torch.ones_like(present)
    for found, expected in zip(net(h, present), net(filled, everything)):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", FUSIONS)
def test_present_features_have_a_say(kind):
    net, h, present = fusion(kind=kind), features(), masks()
    mean, _ = net(h, present)
    for index in range(M):
        moved = h.clone()
        moved[:, index, 0] += 1
        changed = (net(moved, present)[0] != mean).any(1)
        assert torch.equal(changed, present[:, index])


def test_gradients_reach_features_that_are_there_and_stand_ins_of_those_that_are_not():
    net, h = fusion(), features().requires_grad_()
    present = torch.ones(16, M, dtype=torch.bool)
    present[:5, 1] = False
    mean, std = net(h, present)
    (mean.square() + std).sum().backward()
    assert torch.equal(h.grad.any(-1), present)
    assert net.absent.grad.any(-1).tolist() == [False, True, False]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_permuting_features_with_their_weights_changes_nothing(order):
    net, other, h, present = fusion(seed=1), fusion(seed=2), features(), masks()
    state = net.state_dict()
    blocks = state["layers.0.weight"].unflatten(1, (M, D))
    state["layers.0.weight"] = blocks[:, order].flatten(1)
    state["absent"] = state["absent"][list(order)]
    other.load_state_dict(state)
    for found, expected in zip(other(h[:, order], present[:, order]), net(h, present)):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3, 1e6])
def test_the_gaussian_is_proper_however_extreme_the_features(factor, kind):
    h = factor * features()
    mean, std = fusion(kind=kind)(h, torch.ones(16, M, dtype=torch.bool))
    assert std.min() >= MIN_STD
    assert std.max() <= MAX_STD
    assert DiagonalGaussian(mean, std).log_prob(mean).isfinite().all()


@pytest.mark.parametrize("kind", FUSIONS)
def test_std_and_mean_are_full_precision_when_the_layers_are_not(kind):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean, std = fusion(kind=kind)(features(), masks())
    assert mean.dtype == std.dtype == torch.float32


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_depth_is_the_number_of_linear_layers(depth):
    assert sum(isinstance(layer, nn.Linear) for layer in fusion(depth).layers) == depth


def test_a_single_layer_is_affine_and_four_are_not():
    h, present = features(), torch.ones(16, M, dtype=torch.bool)
    for depth, straight in ((1, True), (4, False)):
        net = fusion(depth)
        ends = (net(h, present)[0] + net(-h, present)[0]) / 2
        middle = net(torch.zeros_like(h), present)[0]
        assert torch.allclose(ends, middle, atol=1e-4) == straight


@pytest.mark.parametrize("kind", FUSIONS)
def test_items_are_independent_in_evaluation(kind):
    net, h, present = fusion(kind=kind), features(), masks()
    order = torch.randperm(16, generator=rng())
    for found, expected in zip(net(h[order], present[order]), net(h, present)):
        torch.testing.assert_close(found, expected[order])


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_a_sum_forgets_which_feature_was_whose_and_the_others_do_not(order):
    h, everything = features(), torch.ones(16, M, dtype=torch.bool)
    for kind in FUSIONS:
        net = fusion(kind=kind)
        same = torch.allclose(net(h[:, order], everything)[0], net(h, everything)[0], atol=1e-5)
        assert same == (kind == "sum")


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_part_of_a_fusion_learns(kind):
    net, h, present = fusion(kind=kind).train(), features(), masks()
    mean, std = net(h, present)
    (mean * torch.randn(mean.shape, generator=rng(3)) + std).sum().backward()
    parts = dict(net.named_parameters())
    still = [name for name, p in parts.items() if p.grad is None or not p.grad.any()]
    assert not still


def test_attention_tells_its_modalities_apart_by_their_places_alone():
    net, h, present = fusion(kind="attention"), features(), masks()
    with torch.no_grad():
        net.places.zero_()
    order = [2, 0, 1]
    for found, expected in zip(net(h[:, order], present[:, order]), net(h, present)):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("depth", [0, -1])
def test_fewer_layers_than_one_are_refused(depth, kind):
    with pytest.raises(ValueError, match=f"depth: {depth}, expected at least 1"):
        FUSIONS[kind](M, D, Z, depth=depth, hidden=7)
