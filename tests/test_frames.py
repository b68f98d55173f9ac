"""Frames: one colour an item, on the named views alone, and readable from every real picture."""

import pytest
import torch
from tiny_models import tiny_dataset

from shala_lite import load_dataset, metrics
from shala_lite.datasets import frames


@pytest.fixture(scope="module")
def plain():
    return load_dataset("polymnist", "test", size=400)


@pytest.fixture(scope="module")
def framed():
    return load_dataset("polymnist_frames", "test", size=400)


def test_the_frame_is_all_that_changes(plain, framed):
    at = frames.border(28, 28)
    assert at.sum() == 28**2 - 24**2
    for name in framed.observations:
        before, after = plain.observations[name], framed.observations[name]
        if name not in frames.FRAMED:
            assert torch.equal(before, after)
            continue
        assert torch.equal(before[..., ~at], after[..., ~at])
        paint = torch.tensor(frames.RGB, dtype=torch.uint8)[framed.attributes["frame"]]
        assert (after[..., at] == paint[:, :, None]).all()
    assert torch.equal(plain.labels, framed.labels)
    assert framed.distinct == plain.distinct
    assert framed.name == "polymnist_frames"
    assert "frames" in framed.note


def test_real_frames_are_all_read_right(framed):
    for name in frames.FRAMED:
        reading = frames.read_frames(framed.observations[name])
        assert torch.equal(reading.colour, framed.attributes["frame"])
        assert (reading.distance == 0).all()
        as_floats = frames.read_frames(framed.observations[name].float() / 255)
        assert torch.equal(as_floats.colour, reading.colour)


def test_a_reading_survives_stray_pixels_and_knows_a_blend(framed):
    x = framed.observations["m1"].float() / 255
    damaged = torch.where(
        torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3, 0.5, x
    )
    assert torch.equal(frames.read_frames(damaged).colour, framed.attributes["frame"])
    grey = frames.read_frames(torch.full((1, 3, 28, 28), 0.5))
    assert grey.distance.item() == pytest.approx(0.5)


def test_no_colour_is_nearer_to_their_mean_than_another():
    colours = torch.tensor(frames.RGB) / 255
    distance = torch.cdist(colours, colours)
    assert len(distance[~torch.eye(4, dtype=torch.bool)].unique()) == 1
    assert len(torch.cdist(colours, colours.mean(0, keepdim=True)).unique()) == 1


def test_the_colour_is_even_and_knows_nothing_of_the_digit():
    data = load_dataset("polymnist_frames", "train", size=4000)
    colour = data.attributes["frame"]
    counts = torch.bincount(colour, minlength=4)
    assert (counts - 1000).abs().max() < 5 * 28  # five standard deviations
    table = torch.zeros(4, 10).index_put_((colour, data.labels), torch.ones(4000), accumulate=True)
    expected = table.sum(1, keepdim=True) * table.sum(0) / 4000
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert chi2 < 27 + 5 * (2 * 27) ** 0.5  # 27 degrees of freedom


def test_the_same_arguments_give_the_same_bytes_and_others_do_not(framed):
    again = load_dataset("polymnist_frames", "test", size=400)
    assert again.fingerprint == framed.fingerprint
    base = load_dataset("polymnist", "test", size=400)
    assert frames.with_frames(base, frames.FRAMED, 0).fingerprint == framed.fingerprint
    assert frames.with_frames(base, frames.FRAMED, 1).fingerprint != framed.fingerprint
    other = load_dataset("polymnist_frames", "val", size=400)
    assert not torch.equal(other.attributes["frame"], framed.attributes["frame"])


def test_views_of_an_item_agree_and_chance_does_not(framed):
    read = {n: frames.read_frames(framed.observations[n]).colour for n in frames.FRAMED}
    assert metrics.unconditional_coherence(read) == 1
    assert metrics.independent_coherence(read, 4) < 0.03


def test_what_does_not_fit_is_named(plain):
    with pytest.raises(ValueError, match="names"):
        frames.with_frames(plain, ["m9"])
    with pytest.raises(ValueError, match="names"):
        frames.with_frames(plain, [])
    with pytest.raises(ValueError, match=r"'a' of shape \(2, 8, 8\)"):
        frames.with_frames(tiny_dataset(), ["a"])
    with pytest.raises(ValueError, match="images"):
        frames.read_frames(torch.zeros(2, 1, 28, 28))
