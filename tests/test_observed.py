"""What is observed: bad input is named, and what is absent is gone."""

import math

import pytest
import torch
from tiny_models import NAMES, rng, some_present, tiny_images, tiny_modalities

from shala_lite.observed import all_subsets, check_observations, draw_subsets

MODALITIES = tiny_modalities()


def check(x, present=None, **options):
    return check_observations(MODALITIES, x, present, **options)


def test_complete_items_pass_as_they_are_in_the_order_of_the_modalities():
    x = tiny_images()
    found, present = check({name: x[name] for name in "cab"})
    assert list(found) == list(NAMES)
    assert all(found[name] is x[name] for name in NAMES)
    assert present is None
    assert check(x, torch.ones(12, 3, dtype=torch.bool))[1] is None


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 7.0])
def test_what_is_absent_becomes_zero(junk):
    x, mask = tiny_images(), some_present()
    for index, name in enumerate(NAMES):
        x[name][~mask[:, index]] = junk
    found, present = check(x, mask)
    assert torch.equal(present, mask)
    for index, name in enumerate(NAMES):
        assert (found[name][~mask[:, index]] == 0).all()
        assert torch.equal(found[name][mask[:, index]], x[name][mask[:, index]])


def test_a_modality_that_is_not_given_is_present_nowhere():
    x = tiny_images()
    for mask in (None, torch.ones(12, 3, dtype=torch.bool)):
        _, present = check({name: x[name] for name in "ac"}, mask)
        assert torch.equal(present, torch.tensor([True, False, True]).expand(12, -1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_found(bad):
    x = tiny_images()
    x["b"][4, 1, 2, 3] = x["b"][9, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"x\['b'\]: NaN or infinite in 2 of 12 items, first 4"):
        check(x)
    assert check(x, finite=False)[0]["b"] is x["b"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda x: x.update(b=x["b"][:, :, :7]),
            r"x\['b'\]: shape \(12, 2, 7, 8\), expected \(B, 2",
        ),
        (lambda x: x.update(b=x["b"][:11]), r"x\['b'\]: shape \(11, 2, 8, 8\), expected"),
        (lambda x: x.update(a=x["a"][0]), r"x\['a'\]: shape \(2, 8, 8\), expected"),
        (lambda x: x.update(a=torch.tensor(1.0)), r"x\['a'\]: shape \(\), expected"),
        (
            lambda x: x.update(c=(255 * x["c"]).byte()),
            r"x\['c'\]: dtype torch.uint8, expected float",
        ),
        (lambda x: x.clear(), "x: empty, expected at least one modality"),
        (lambda x: x.update({k: v[:0] for k, v in x.items()}), r"x\['a'\]: shape \(0, 2, 8, 8\)"),
    ],
)
def test_observations_of_another_shape_or_kind_are_named(spoil, message):
    x = tiny_images()
    spoil(x)
    with pytest.raises(ValueError, match=message):
        check(x)


def test_an_unknown_modality_is_named():
    x = tiny_images()
    with pytest.raises(KeyError, match=r"x: unknown modalities \['d'\].*'a', 'b', 'c'"):
        check({**x, "d": x["a"]})


@pytest.mark.parametrize(
    "mask", [torch.ones(12, 2, dtype=torch.bool), torch.ones(3, 12, dtype=torch.bool)]
)
def test_a_mask_of_another_shape_is_named(mask):
    with pytest.raises(ValueError, match=r"present: shape .*expected \(12, 3\) and bool"):
        check(tiny_images(), mask)


def test_a_mask_that_is_not_of_truth_values_is_named():
    with pytest.raises(ValueError, match=r"present: .*torch.float32, expected \(12, 3\) and bool"):
        check(tiny_images(), torch.ones(12, 3))


def test_an_item_with_nothing_is_named():
    mask = some_present()
    mask[[2, 5]] = False
    with pytest.raises(ValueError, match=r"nothing is present for items \[2, 5\] \(2 in all\)"):
        check(tiny_images(), mask)
    # what it has is not among what is given
    mask[[2, 5], 1] = True
    x = tiny_images()
    with pytest.raises(
        ValueError, match=r"items \[.*2.*5.*\].*expected at least one of \['a', 'c'\]"
    ):
        check({name: x[name] for name in "ac"}, mask)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_all_subsets_are_all_there_once(count):
    subsets = all_subsets(count)
    assert subsets.shape == (2**count - 1, count)
    assert len(subsets.unique(dim=0)) == len(subsets)
    assert subsets.any(1).all()
    assert subsets.sum(1).tolist() == sorted(subsets.sum(1).tolist())


@pytest.mark.parametrize("count", [0, 21])
def test_too_many_subsets_are_refused(count):
    with pytest.raises(ValueError, match=f"modalities: {count}, expected 1 to 20"):
        all_subsets(count)


def test_subsets_are_drawn_from_what_is_present():
    present = torch.rand(5000, 5, generator=rng()) < 0.5
    assert not (draw_subsets(present, 0.2, 0.4, rng(1)) & ~present).any()


def test_nothing_and_one_are_drawn_as_often_as_asked_and_other_sizes_uniformly():
    count, modalities, none, one = 60_000, 4, 0.2, 0.3
    present = torch.ones(count, modalities, dtype=torch.bool)
    sizes = draw_subsets(present, none, one, rng()).sum(1)
    shares = torch.bincount(sizes, minlength=modalities + 1) / count
    rest = (1 - none - one) / modalities
    expected = torch.tensor([none, one + rest, rest, rest, rest])
    assert (shares - expected).abs().le(5 * (expected * (1 - expected) / count).sqrt()).all()


@pytest.mark.parametrize(("none", "one", "sizes"), [(1, 0, {0}), (0, 1, {1}), (0, 0, {1, 2, 3})])
def test_extreme_proportions_are_exact(none, one, sizes):
    present = torch.ones(2000, 3, dtype=torch.bool)
    assert set(draw_subsets(present, none, one, rng()).sum(1).tolist()) == sizes


def test_sizes_are_uniform_up_to_what_is_present():
    present = torch.tensor([[True, False, True, True, False]]).repeat(30_000, 1)
    subsets = draw_subsets(present, 0.0, 0.0, rng())
    sizes = torch.bincount(subsets.sum(1), minlength=6) / len(present)
    tolerance = 5 * math.sqrt(2 / 9 / len(present))
    expected = torch.tensor([0, 1, 1, 1, 0, 0]) / 3
    torch.testing.assert_close(sizes, expected, atol=tolerance, rtol=0)


def test_no_modality_is_preferred():
    present = torch.ones(60_000, 4, dtype=torch.bool)
    shares = draw_subsets(present, 0.0, 1.0, rng()).float().mean(0)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.01, rtol=0)


def test_items_with_nothing_present_have_the_empty_subset():
    assert not draw_subsets(torch.zeros(50, 3, dtype=torch.bool), 0.0, 0.5, rng()).any()


def test_subsets_are_those_of_their_generator():
    present = torch.ones(50, 4, dtype=torch.bool)
    first, second, third = (draw_subsets(present, 0.2, 0.4, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
