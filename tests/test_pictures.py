import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch

from shala_lite import pages, pictures, plotting
from shala_lite.modalities import Modality
from shala_lite.vocabulary import Vocabulary


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
    with pytest.raises(ValueError, match=r"\(2, 5, 6\)"):
        pictures.as_rgb(np.zeros((2, 5, 6)))
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


def test_rows_of_a_grid_are_as_high_as_their_images():
    tall, flat = np.zeros((9, 5), np.uint8), np.full((2, 5), 100, np.uint8)
    grid = pictures.mosaic([[tall, tall], [flat, flat], [tall]], gap=1)
    assert grid.shape == (9 + 1 + 2 + 1 + 9, 11, 3)
    assert (grid[10:12, :5] == 100).all()
    assert (grid[13:, :5] == 0).all()
    assert (grid[13:, 6:] == 255).all()


def test_texts_are_written_in_the_width_that_there_is():
    short, long = pictures.written(["one", "a bird with a red crown and " * 4], 90, lines=2)
    assert short.shape == long.shape
    assert short.shape[1] == 90
    assert (short < 128).sum() < (long < 128).sum()
    assert (pictures.written([""], 90)[0] == 255).all()
    # a third line would not fit: what stands there ends in an ellipsis, inside the picture
    assert (long[[0, -1]] == 255).all()
    assert (long[:, [0, -1]] == 255).all()


@pytest.mark.parametrize("width", [64, 84, 96, 128])
def test_a_word_shrinks_until_it_fits_and_is_never_cut(width):
    whole, cut = pictures.written(["wwwwwwww", "…"], width)
    assert (whole[:, [0, 1, -2, -1]] == 255).all()
    dark = (whole < 128).any(0).nonzero()[0]
    assert dark[-1] - dark[0] > width / 2
    assert (whole < 128).sum() > 5 * (cut < 128).sum()


def test_tiles_enlarge_pictures_and_spell_texts():
    word = Modality("word", (4,), "text", Vocabulary((" ", "a", "b"), ""))
    grey = Modality("grey", (1, 6, 8))
    x = {
        "grey": np.arange(96, dtype=np.uint8).reshape(2, 1, 6, 8),
        "word": torch.tensor([[0, 1, 2, 0]] * 2),
    }
    rows = pictures.tiles(x, (grey, word), zoom=3)
    assert list(rows) == ["grey", "word"]
    assert rows["grey"][0].shape == (3, 18, 24)
    assert (rows["grey"][1][0, ::3, ::3] == x["grey"][1, 0]).all()
    expected = pictures.written(["·ab·"], 24)[0]
    assert (rows["word"][0] == expected).all()
    assert list(pictures.tiles({"word": x["word"]}, (grey, word))) == ["word"]


def test_a_silhouette_beside_the_colours_is_not_drawn():
    image = np.random.default_rng(0).random((4, 5, 6))
    np.testing.assert_array_equal(pictures.as_rgb(image), pictures.as_rgb(image[:3]))
