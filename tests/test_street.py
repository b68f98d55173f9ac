"""Drawn street numbers: legible to a small network, and to nothing linear."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeClassifier
from torch import nn

from shala_lite.datasets import street


def draw(labels, seed=0):
    return street.draw_streets(np.asarray(labels), np.random.default_rng(seed))


def plain(count, **changes):
    """Styles of upright black digits of one font on white, with nothing around them."""
    styles = street.draw_styles(count, np.random.default_rng(0))
    still = ("place", "turn", "slant", "tilt", "weight", "shadow", "slope", "blur", "noise")
    bright = ("plate", "light")
    for name in styles:
        value = 0 if name in still else 1 if name in bright else None
        if value is not None:
            styles[name] = np.full_like(styles[name], value)
    fixed = {"font": 0, "left": street.NOBODY, "right": street.NOBODY, "margin": 99, "digit": 0}
    for name, value in (fixed | {"height": 20, "stretch": 1, "gap": 2} | changes).items():
        styles[name][:] = value
    return styles


@pytest.fixture
def paint(monkeypatch):
    """Pictures in [0, 1] of labels in a given style."""

    def paint(labels, styles):
        monkeypatch.setattr(street, "draw_styles", lambda count, rng: styles)
        return draw(labels)[0] / 255

    return paint


def test_pictures_are_bytes_and_use_their_range():
    pictures, styles = draw(np.arange(300) % 10)
    assert pictures.shape == (300, 3, 32, 32)
    assert pictures.dtype == np.uint8
    assert pictures.min() < 20
    assert pictures.max() > 235
    assert all(len(values) == 300 for values in styles.values())
    assert draw(np.zeros(0, int))[0].shape == (0, 3, 32, 32)


def test_one_generator_gives_the_same_bytes_and_another_others():
    labels = np.arange(50) % 10
    assert draw(labels)[0].tobytes() == draw(labels)[0].tobytes()
    assert draw(labels)[0].tobytes() != draw(labels, seed=1)[0].tobytes()


def test_painting_across_chunks_changes_nothing(monkeypatch):
    labels = np.arange(60) % 10
    whole, _ = draw(labels)
    monkeypatch.setattr(street, "_CHUNK", 7)
    assert np.array_equal(draw(labels)[0], whole)


@pytest.mark.parametrize("labels", [[3, 10], [-1, 3]])
def test_a_label_that_is_no_digit_is_an_error(labels):
    with pytest.raises(ValueError, match=r"labels: from .* expected 0 to 9"):
        draw(labels)


def test_every_font_has_ten_digits_of_its_own_and_nobody_is_blank():
    glyphs, widths = street._glyphs()
    glyphs = glyphs.reshape(len(street.FONTS), 11, -1)
    assert not glyphs[:, street.NOBODY].any()
    for font in glyphs[:, :10]:
        assert len(np.unique(font, axis=0)) == 10
        assert font.sum(1).min() > 100
    assert len(np.unique(glyphs[:, 3], axis=0)) == len(street.FONTS)
    assert widths.min() > 0
    # No glyph is cut off by its box.
    boxes = glyphs.reshape(-1, 64, 64)
    edges = (boxes[:, 0], boxes[:, -1], boxes[:, :, 0], boxes[:, :, -1])
    assert not any(edge.any() for edge in edges)


def test_a_plain_digit_has_its_height_and_stands_in_the_middle(paint):
    pictures = paint(range(10), plain(10))
    assert np.array_equal(pictures[:, 0], pictures[:, 1])  # black on white has no colour
    for picture in pictures[:, 0]:
        rows, columns = (np.flatnonzero((picture < 0.5).any(axis)) for axis in (1, 0))
        assert abs(np.ptp(rows) + 1 - 20) <= 2
        assert abs(rows.mean() - 15.5) <= 1
        assert abs(columns.mean() - 15.5) <= 1


def test_neighbours_stand_where_they_should_and_leave_the_digit_alone(paint):
    alone = paint([4], plain(1))[0]
    for side, near in (("left", slice(0, 5)), ("right", slice(27, 32))):
        both = paint([4], plain(1, **{side: 8}))[0]
        changed = (both != alone).any((0, 1))
        assert changed[near].any()
        assert not changed[11:21].any()
        other = slice(27, 32) if side == "left" else slice(0, 5)
        assert not changed[other].any()


def test_swapped_colours_are_the_negative(paint):
    dark = paint([5], plain(1))
    bright = paint([5], plain(1, plate=0, digit=1))
    assert abs(dark + bright - 1).max() < 0.01


def test_turning_keeps_the_ink(paint):
    upright = 1 - paint(range(10), plain(10))
    turned = 1 - paint(range(10), plain(10, turn=0.12))
    assert abs(turned.sum((1, 2, 3)) / upright.sum((1, 2, 3)) - 1).max() < 0.1
    assert abs(turned - upright).max((1, 2, 3)).min() > 0.3


def test_styles_know_nothing_of_the_label():
    # The styles are drawn before anything sees the labels: other labels, the same styles.
    first, second = (draw(np.full(40, label))[1] for label in (2, 7))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_digits_are_darker_than_their_plate_as_often_as_brighter():
    styles = street.draw_styles(4000, np.random.default_rng(0))
    contrast = (styles["digit"] - styles["plate"]).mean(1)
    assert abs((contrast > 0).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(4000)
    assert abs(contrast).min() > 0.04


def tell_apart(train, labels, steps=200):
    """A small network, trained on pictures; gives digits of others."""
    torch.manual_seed(0)

    def block(inputs, outputs):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU()]

    body = [*block(3, 16), *block(16, 32), *block(32, 32), nn.Flatten()]
    net = nn.Sequential(*body, nn.Linear(512, 64), nn.BatchNorm1d(64), nn.ReLU())
    net = net.append(nn.Linear(64, 10)).to(memory_format=torch.channels_last)
    best = torch.optim.Adam(net.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(best, 4e-3, total_steps=steps)
    x, y = torch.from_numpy(train), torch.from_numpy(labels)
    for _ in range(steps):
        at = torch.randint(len(x), (128,))
        best.zero_grad()
        F.cross_entropy(net((x[at] / 255 - 0.5) * 4), y[at]).backward()
        best.step()
        rate.step()
    net.eval()

    def read(pictures):
        with torch.no_grad():
            return net((torch.from_numpy(pictures) / 255 - 0.5) * 4).argmax(1).numpy()

    return read


def test_a_small_network_reads_them_and_a_linear_classifier_does_not():
    labels, new = np.arange(4000) % 10, np.arange(1000) % 10
    pictures, others = draw(labels)[0], draw(new, seed=1)[0]
    flat = [x.reshape(len(x), -1).astype(np.float32) / 255 for x in (pictures, others)]
    linear = RidgeClassifier(alpha=1000, solver="cholesky").fit(flat[0], labels)
    assert linear.score(flat[1], new) < 0.3  # measured: 0.14; chance is 0.1
    assert (tell_apart(pictures, labels)(others) == new).mean() > 0.9  # measured: 0.97
