import base64
import io
import itertools
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from shala_lite import pages
from shala_lite.pages import data_uri, explore, figure, pixels, slider, widget_slider

VOID = {"img", "input"}
WORDS = {"alt": "Noise turns into digits", "caption": "What to see"}


class Tree(HTMLParser):
    """Elements (tag, attributes) in order; fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def decoded(address):
    head, content = address.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def frames(n=4, seed=0):
    return list(np.random.default_rng(seed).integers(0, 255, (n, 6, 8, 3), np.uint8))


def chart(colour="red"):
    drawn = Figure(figsize=(2, 1), dpi=50)
    drawn.subplots().plot([0, 1], color=colour)
    return drawn


def names(n=4):
    return [f"t = {i / n:.2f}" for i in range(n)]


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
    for show in (
        lambda: figure(chart(), **words),
        lambda: slider(frames(), names(), **words),
        lambda: widget_slider(frames().__getitem__, names(), **words),
    ):
        with pytest.raises(ValueError, match=f"{missing} is"):
            show()


@pytest.mark.parametrize("missing", ["alt", "caption"])
def test_words_cannot_be_forgotten(missing):
    words = {key: value for key, value in WORDS.items() if key != missing}
    with pytest.raises(TypeError, match=missing):
        figure(chart(), **words)
    with pytest.raises(TypeError, match=missing):
        slider(frames(), names(), **words)


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
    assert np.abs(decoded(data_uri(drawn)).astype(int) - drawn).mean() < pages.PALETTE_ERROR


def test_a_slider_has_one_labelled_range_over_all_frames():
    images = frames()
    tree = Tree(slider(images, names(), label="noise level", start=2, **WORDS).html)
    (control,) = tree.all("input")
    assert control["type"] == "range"
    assert (control["min"], control["max"], control["step"], control["value"]) == (
        "0",
        "3",
        "1",
        "2",
    )
    assert control["aria-valuetext"] == "t = 0.50"
    (label,) = tree.all("label")
    assert label["for"] == control["id"]
    assert tree.text["label"] == "noise level"
    (output,) = tree.all("output")
    assert output["for"] == control["id"]
    assert output["aria-live"] == "polite"
    assert tree.text["output"] == "t = 0.50"
    assert tree.text["figcaption"] == WORDS["caption"]
    shown = tree.all("img")
    for image, one in zip(images, shown, strict=True):
        np.testing.assert_array_equal(decoded(one["src"]), image)
    assert ["display:block" in one["style"] for one in shown] == [False, False, True, False]
    assert [one["alt"] for one in shown] == [
        f"{WORDS['alt']} (noise level: {name})" for name in names()
    ]


def test_ids_are_unique_however_often_a_slider_stands_on_a_page():
    one = slider(frames(), names(), **WORDS)
    other = slider(frames(seed=1), names(), **WORDS)
    tree = Tree(f"<div>{one.html}{one.html}{other.html}</div>")
    found = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(found) == len(set(found)) == 6
    targets = {attributes["for"] for _, attributes in tree.elements if "for" in attributes}
    assert targets <= set(found)
    assert len(targets) == 3
    # Each script looks for its own slider.
    for root in [identity for identity in found if not identity.endswith("-range")]:
        assert tree.text["script"].count(f'getElementById("{root}")') == 1


def test_two_kernels_do_not_give_different_sliders_one_id(monkeypatch):
    found = []
    for seed in (0, 1):
        monkeypatch.setattr(pages, "_numbers", itertools.count(1))
        tree = Tree(slider(frames(seed=seed), names(), **WORDS).html)
        found.append(tree.all("figure")[0]["id"])
    assert found[0] != found[1]


def test_a_slider_needs_nothing_from_elsewhere():
    tree = Tree(slider(frames(), names(), **WORDS).html)
    for _, attributes in tree.elements:
        for name in ("src", "href", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in tree.text["script"]


def test_labels_cannot_break_out_of_the_page():
    wicked = ['</script><img src="x">', '"onload="', "ID LABELS", "ü"]
    tree = Tree(slider(frames(), wicked, label="<b>", **WORDS).html)
    assert len(tree.all("img")) == 4
    assert len(tree.all("script")) == 1
    assert tree.all("img")[1]["alt"].endswith(wicked[1] + ")")


def test_sliders_of_figures_and_of_zoomed_arrays():
    drawn = Tree(slider([chart("red"), chart("blue")], ["r", "b"], **WORDS).html).all("img")
    assert (drawn[0]["width"], drawn[0]["height"]) == ("100", "50")
    assert drawn[0]["src"] != drawn[1]["src"]
    (first, *_) = Tree(slider(frames(), names(), zoom=3, **WORDS).html).all("img")
    assert (first["width"], first["height"]) == ("24", "18")
    assert "pixelated" in first["style"]


def test_a_slider_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="4 frames and 3 labels"):
        slider(frames(), names(3), **WORDS)
    with pytest.raises(ValueError, match="0 frames"):
        slider([], [], **WORDS)
    with pytest.raises(ValueError, match="expected one size"):
        slider([*frames(1), np.zeros((2, 2), np.uint8)], names(2), **WORDS)
    with pytest.raises(ValueError, match="start is 4; expected 0 to 3"):
        slider(frames(), names(), start=4, **WORDS)


def test_a_live_slider_draws_the_frame_that_is_asked_for():
    pytest.importorskip("ipywidgets")
    images, asked = frames(), []

    def draw(i):
        asked.append(i)
        return images[i]

    box = widget_slider(draw, names(), label="noise level", start=1, **WORDS)
    control, picture = box.children
    assert control.description == "noise level"
    assert asked == [1]
    control.index = 3
    assert asked == [1, 3]
    (shown,) = Tree(picture.value).all("img")
    np.testing.assert_array_equal(decoded(shown["src"]), images[3])
    assert shown["alt"] == f"{WORDS['alt']} (noise level: t = 0.75)"


def test_explore_is_live_only_where_a_front_end_is(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    monkeypatch.delenv("SHALA_LIVE", raising=False)
    assert isinstance(explore(frames(), names(), **WORDS), pages.Page)
    drawn = explore(frames().__getitem__, names(), **WORDS)
    assert len(Tree(drawn.html).all("img")) == 4
    assert isinstance(explore(frames(), names(), live=True, **WORDS), ipywidgets.VBox)
    monkeypatch.setenv("SHALA_LIVE", "1")
    assert isinstance(explore(frames(), names(), **WORDS), ipywidgets.VBox)
    assert isinstance(explore(frames(), names(), live=False, **WORDS), pages.Page)
