import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from shala_lite.pages import PALETTE_ERROR, data_uri, figure, pixels
from tests.page_tree import WORDS, Tree, chart, decoded, frames


def test_a_figure_carries_alt_caption_and_its_pixels():
    image = frames(1)[0]
    tree = Tree(figure(image, alt='say "a" & b', caption="1 < 2 & so on").html)
    (shown,) = tree.all("img")
    assert shown["alt"] == 'say "a" & b'
    assert tree.text["figcaption"] == "1 < 2 & so on"
    np.testing.assert_array_equal(decoded(shown["src"]), image)
    assert (shown["width"], shown["height"]) == ("8", "6")
    assert "max-width:100%" in shown["style"]


def test_a_matplotlib_figure_is_stored_denser_than_it_is_shown():
    (shown,) = Tree(figure(chart(), **WORDS).html).all("img")
    assert (shown["width"], shown["height"]) == ("100", "50")
    assert decoded(shown["src"]).shape == (100, 200, 3)


@pytest.mark.parametrize("missing", ["alt", "caption"])
@pytest.mark.parametrize("value", ["", "  \n", None])
def test_without_words_there_is_no_picture(missing, value):
    words = {**WORDS, missing: value}
    with pytest.raises(ValueError, match=f"{missing} is"):
        figure(chart(), **words)


@pytest.mark.parametrize("missing", ["alt", "caption"])
def test_words_cannot_be_forgotten(missing):
    words = {key: value for key, value in WORDS.items() if key != missing}
    with pytest.raises(TypeError, match=missing):
        figure(chart(), **words)


def test_a_notebook_gets_html_and_plain_text():
    bundle = figure(chart(), **WORDS)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert WORDS["alt"] in bundle["text/plain"]
    assert "base64" not in bundle["text/plain"]


def test_a_pyplot_figure_is_closed_so_that_it_is_not_shown_twice():
    drawn = plt.figure(figsize=(1, 1))
    number = drawn.number
    figure(drawn, **WORDS)
    assert number not in plt.get_fignums()


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8)]
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a figure or uint8"):
        pixels(wrong)


def test_grey_arrays_become_rgb():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(pixels(grey), pixels(grey[..., None]))
    np.testing.assert_array_equal(pixels(grey)[..., 2], grey)


def test_photographs_keep_their_colours_and_charts_get_a_palette():
    photograph = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    np.testing.assert_array_equal(decoded(data_uri(photograph)), photograph)
    drawn = pixels(chart(), 4)
    plain = io.BytesIO()
    Image.fromarray(drawn).save(plain, format="PNG", optimize=True)
    assert len(data_uri(drawn)) < len(plain.getvalue())
    assert np.abs(decoded(data_uri(drawn)).astype(int) - drawn).mean() < PALETTE_ERROR
