import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch

from shala_lite import pages, pictures, plotting


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        plotting.use_style()
        yield


def random_rows(rows=3, columns=4, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (rows, columns, 3, 7, 9), np.uint8)


@pytest.mark.parametrize("shape", [(5, 6), (1, 5, 6), (3, 5, 6)])
def test_images_of_every_form_become_the_same_rgb(shape):
    floats = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    bytes_ = (floats * 255).round().to(torch.uint8)
    assert pictures.as_rgb(floats).shape == (5, 6, 3)
    np.testing.assert_array_equal(pictures.as_rgb(floats), pictures.as_rgb(bytes_))
    np.testing.assert_array_equal(pictures.as_rgb(bytes_)[..., 0], bytes_.reshape(-1, 5, 6)[0])


def test_floats_outside_the_range_are_clipped():
    assert pictures.as_rgb(np.array([[-1.0, 2.0]])).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 5, 6\)"):
        pictures.as_rgb(np.zeros((4, 5, 6)))
    with pytest.raises(ValueError, match="no image"):
        pictures.mosaic([[None]])


def test_a_mosaic_holds_every_image_at_its_place():
    rows = random_rows()
    canvas = pictures.mosaic(rows, gap=2)
    assert canvas.shape == (3 * 9 - 2, 4 * 11 - 2, 3)
    for i in range(3):
        for j in range(4):
            found = canvas[i * 9 : i * 9 + 7, j * 11 : j * 11 + 9]
            np.testing.assert_array_equal(found, rows[i, j].transpose(1, 2, 0))
    assert (canvas[7:9] == 255).all()


def test_an_empty_cell_is_white_and_small_images_are_centred():
    black = np.zeros((3, 4, 4), np.uint8)
    canvas = pictures.mosaic([[black, None], [np.zeros((2, 2), np.uint8), black]], gap=0)
    assert (canvas[:4, 4:] == 255).all()
    assert (canvas[5:7, 1:3] == 0).all()
    assert canvas[4:, :4].sum() == (16 - 4) * 3 * 255


@pytest.mark.parametrize("zoom", [1, 1.5, 2, 3.5])
def test_every_image_pixel_of_a_figure_is_a_block_of_equal_size(zoom):
    rows = random_rows()
    figure = pictures.image_grid(
        rows, row_titles=["a", "long title", ""], column_titles=["a", "b", "c", "d"], zoom=zoom
    )
    drawn = pages.pixels(figure, 2)
    expected = pictures.mosaic(rows)
    block = round(2 * zoom)
    expected = expected.repeat(block, 0).repeat(block, 1)
    bottom = drawn.shape[0] - 2 * 1  # the mosaic ends one screen pixel above the bottom, right
    found = [
        np.array_equal(
            drawn[bottom - expected.shape[0] + dy : bottom + dy, -2 - expected.shape[1] + dx :][
                :, : expected.shape[1]
            ],
            expected,
        )
        for dy in (-1, 0, 1)
        for dx in (-2, -1, 0, 1)
    ]
    assert any(found)


def test_titles_come_from_a_mapping_and_must_match():
    rows = dict(zip("abc", random_rows(), strict=True))
    texts = {text.get_text() for text in pictures.image_grid(rows).axes[0].texts}
    assert texts == set("abc")
    with pytest.raises(ValueError, match="column_titles has 1 entries; expected 4"):
        pictures.image_grid(rows, column_titles=["one"])
    with pytest.raises(ValueError, match="row_titles has 2 entries; expected 3"):
        pictures.image_grid(rows, row_titles=["one", "two"])


def overlapping(figure):
    renderer = figure._get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text()]
    frame = figure.bbox
    inside = all(
        box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y1 <= frame.y1 and box.y0 >= frame.y0
        for box in boxes
    )
    return boxes, inside


@pytest.mark.parametrize(
    "titles", [["m0", "m1", "m2", "m3"], ["two words", "m1", "x", "y"], ["extraordinarily"] * 4]
)
def test_titles_stay_inside_the_figure(titles):
    rows = np.zeros((2, 4, 3, 28, 28))
    figure = pictures.image_grid(rows, row_titles=["given", "made of it"], column_titles=titles)
    boxes, inside = overlapping(figure)
    assert len(boxes) == 6
    assert inside


def test_level_titles_do_not_touch():
    rows = np.zeros((1, 4, 3, 28, 28))
    boxes, _ = overlapping(pictures.image_grid(rows, column_titles=["mean of all"] * 4))
    assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))


def test_marked_images_are_framed():
    rows = random_rows()
    figure = pictures.image_grid(rows, marked=[(1, 2)])
    (frame,) = figure.axes[0].patches
    assert frame.get_xy() == (2 * 11, 1 * 9)
    assert (frame.get_width(), frame.get_height()) == (9, 7)


def test_blocks_stand_side_by_side_with_a_gap_each_under_its_title():
    left, right = random_rows(2, 3), random_rows(2, 1, seed=1)
    blocks = {
        "left": {"a": left[0], "b": left[1]},
        "right": {"a": torch.from_numpy(right[0]), "b": torch.from_numpy(right[1])},
    }
    figure = plotting.side_by_side(blocks, zoom=1)
    rows = [[*left[i], None, *right[i]] for i in range(2)]
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, pictures.mosaic(rows))
    texts = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert texts["left"] == pytest.approx(1.5 / 5)
    assert texts["right"] == pytest.approx(4.5 / 5)
    assert {"a", "b"} <= set(texts)
    with pytest.raises(ValueError, match="expected the same"):
        plotting.side_by_side({"left": {"a": left[0]}, "right": {"c": left[0]}})


def test_saving_leaves_the_places_of_the_images_alone(tmp_path):
    """The style lays figures out by itself; a grid of pixels is laid out already."""
    figure = plotting.image_grid(random_rows())
    before = figure.axes[0].get_position().bounds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            figure.savefig(tmp_path / "grid.png", bbox_inches="tight")
    assert figure.axes[0].get_position().bounds == before
