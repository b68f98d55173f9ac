"""Fusion: absent features have no say, and no modality has a privileged place."""

import pytest
import torch
from tiny_models import rng, stir
from torch import nn

from shala_lite.distributions import MAX_STD, MIN_STD, DiagonalGaussian
from shala_lite.fusion import FUSIONS, ConcatFusion

M, D, Z = 3, 5, 4


def fusion(depth=4, seed=0, kind="concat"):
    return stir(FUSIONS[kind](M, D, Z, depth=depth, hidden=7), seed).eval()


def features(n=16, seed=0):
    return torch.randn(n, M, D, generator=rng(seed))


def masks(n=16, seed=0):
    return torch.rand(n, M, generator=rng(seed)) < 0.5


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_the_value_of_an_absent_feature_is_irrelevant(junk, training):
    net, h, present = fusion().train(training), features(), masks()
    spoiled = torch.where(present[..., None], h, junk)
    for found, expected in zip(net(spoiled, present), net(h, present)):
        assert torch.equal(found, expected)


def test_an_absent_feature_is_its_stand_in():
    net, h, present = fusion(), features(), masks()
    filled = torch.where(present[..., None], h, net.absent)
    everything = torch.ones_like(present)
    for found, expected in zip(net(h, present), net(filled, everything)):
        assert torch.equal(found, expected)


def test_present_features_have_a_say():
    net, h, present = fusion(), features(), masks()
    mean, _ = net(h, present)
    for index in range(M):
        moved = h.clone()
        moved[:, index] += 1
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


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3, 1e6])
def test_the_gaussian_is_proper_however_extreme_the_features(factor):
    h = factor * features()
    mean, std = fusion()(h, torch.ones(16, M, dtype=torch.bool))
    assert std.min() >= MIN_STD
    assert std.max() <= MAX_STD
    assert DiagonalGaussian(mean, std).log_prob(mean).isfinite().all()


def test_std_and_mean_are_full_precision_when_the_layers_are_not():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean, std = fusion()(features(), masks())
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


def test_items_are_independent_in_evaluation():
    net, h, present = fusion(), features(), masks()
    order = torch.randperm(16, generator=rng())
    for found, expected in zip(net(h[order], present[order]), net(h, present)):
        torch.testing.assert_close(found, expected[order])


@pytest.mark.parametrize("depth", [0, -1])
def test_fewer_layers_than_one_are_refused(depth):
    with pytest.raises(ValueError, match=f"depth: {depth}, expected at least 1"):
        ConcatFusion(M, D, Z, depth=depth, hidden=7)
