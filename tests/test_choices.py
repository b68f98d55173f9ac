"""What the reader chooses: ranges and selects in a page, widgets where a kernel is alive."""

import itertools

import numpy as np
import pytest

from shala_lite import choices
from shala_lite.choices import Control, explore
from shala_lite.pages import Page
from tests.page_tree import WORDS, Tree, chart, decoded, frames, names


def page(*arguments, **options):
    return explore(*arguments, live=False, **options)


GIVEN = Control("given", {"nothing": (), "m0": ("m0",), "m0 & m1": ("m0", "m1")}, "select", start=1)
GUIDANCE = Control("guidance", [1.0, 2.0], live=[0.5, 1.0, 1.5, 2.0])
SEED = Control("seed", [7], live=range(9))


def painted(given, guidance, seed=7):
    return np.full((4, 6, 3), 60 * len(given) + 10 * guidance + seed, np.uint8)


@pytest.mark.parametrize("missing", ["alt", "caption"])
@pytest.mark.parametrize("value", ["", "  \n", None])
@pytest.mark.parametrize("live", [False, True])
def test_without_words_there_is_no_picture(missing, value, live):
    pytest.importorskip("ipywidgets")
    with pytest.raises(ValueError, match=f"{missing} is"):
        explore(frames(), names(), live=live, **{**WORDS, missing: value})


def test_several_controls_choose_among_all_combinations():
    tree = Tree(page(painted, [GIVEN, GUIDANCE, SEED], **WORDS).html)
    (select,), (control,) = tree.all("select"), tree.all("input")
    assert [label["for"] for label in tree.all("label")] == [select["id"], control["id"]]
    assert ["selected" in option for option in tree.all("option")] == [False, True, False]
    assert (control["type"], control["max"], control["value"]) == ("range", "1", "0")
    shown = tree.all("img")
    expected = [painted(given, w) for given in GIVEN.options.values() for w in GUIDANCE.options]
    for image, one in zip(expected, shown, strict=True):
        np.testing.assert_array_equal(decoded(one["src"]), image)
    assert ["display:block" in one["style"] for one in shown].index(True) == 2
    assert shown[5]["alt"] == f"{WORDS['alt']} (given: m0 & m1, guidance: 2.0)"
    assert len({one["src"] for one in shown}) == 6


def test_a_live_kernel_offers_more_and_draws_what_is_chosen():
    ipywidgets = pytest.importorskip("ipywidgets")
    asked = []

    def draw(*values):
        asked.append(values)
        return painted(*values)

    box = explore(draw, [GIVEN, GUIDANCE, SEED], live=True, **WORDS)
    given, guidance, seed, picture = box.children
    assert isinstance(given, ipywidgets.Dropdown)
    assert isinstance(guidance, ipywidgets.SelectionSlider)
    assert (given.value, guidance.value, seed.value) == ("m0", "1.0", "7")
    given.index, guidance.index, seed.index = 2, 0, 3
    assert asked == [
        (("m0",), 1.0, 7),
        (("m0", "m1"), 1.0, 7),
        (("m0", "m1"), 0.5, 7),
        (("m0", "m1"), 0.5, 3),
    ]
    assert "given: m0 &amp; m1, guidance: 0.5, seed: 3" in picture.value


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("x", []), "x: .* expected distinct names, not 0"),
        (("x", [1, "1"]), "expected distinct names"),
        (("x", [1], "knob"), "kind is 'knob'"),
        (("x", [1, 2], "range", 2), "start is 2; expected 0 to 1"),
    ],
)
def test_a_control_that_does_not_fit_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Control(*arguments)


def test_a_slider_has_one_labelled_range_over_all_frames():
    images = frames()
    tree = Tree(page(images, names(), label="noise level", start=2, **WORDS).html)
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
    one = page(frames(), names(), **WORDS)
    other = page(frames(seed=1), names(), **WORDS)
    tree = Tree(f"<div>{one.html}{one.html}{other.html}</div>")
    found = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(found) == len(set(found)) == 6
    targets = {attributes["for"] for _, attributes in tree.elements if "for" in attributes}
    assert targets <= set(found)
    assert len(targets) == 3
    # Each script looks for its own slider.
    for root in [identity for identity in found if not identity.endswith("-0")]:
        assert tree.text["script"].count(f'getElementById("{root}")') == 1


def test_two_kernels_do_not_give_different_sliders_one_id(monkeypatch):
    found = []
    for seed in (0, 1):
        monkeypatch.setattr(choices, "_numbers", itertools.count(1))
        tree = Tree(page(frames(seed=seed), names(), **WORDS).html)
        found.append(tree.all("figure")[0]["id"])
    assert found[0] != found[1]


def test_a_slider_needs_nothing_from_elsewhere():
    tree = Tree(page(frames(), names(), **WORDS).html)
    for _, attributes in tree.elements:
        for name in ("src", "href", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in tree.text["script"]


def test_labels_cannot_break_out_of_the_page():
    wicked = ['</script><img src="x">', '"onload="', "ID LABELS", "ü"]
    tree = Tree(page(frames(), wicked, label="<b>", **WORDS).html)
    assert len(tree.all("img")) == 4
    assert len(tree.all("script")) == 1
    assert tree.all("img")[1]["alt"].endswith(wicked[1] + ")")


def test_sliders_of_figures_and_of_zoomed_arrays():
    drawn = Tree(page([chart("red"), chart("blue")], ["r", "b"], **WORDS).html).all("img")
    assert (drawn[0]["width"], drawn[0]["height"]) == ("100", "50")
    assert drawn[0]["src"] != drawn[1]["src"]
    (first, *_) = Tree(page(frames(), names(), zoom=3, **WORDS).html).all("img")
    assert (first["width"], first["height"]) == ("24", "18")
    assert "pixelated" in first["style"]


def test_a_slider_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="4 frames and 3 labels"):
        page(frames(), names(3), **WORDS)
    with pytest.raises(ValueError, match="0 frames"):
        page([], [], **WORDS)
    with pytest.raises(ValueError, match="expected one size"):
        page([*frames(1), np.zeros((2, 2), np.uint8)], names(2), **WORDS)
    with pytest.raises(ValueError, match="start is 4; expected 0 to 3"):
        page(frames(), names(), start=4, **WORDS)


def test_a_live_slider_draws_the_frame_that_is_asked_for():
    pytest.importorskip("ipywidgets")
    images, asked = frames(), []

    def draw(i):
        asked.append(i)
        return images[i]

    box = explore(draw, names(), live=True, label="noise level", start=1, **WORDS)
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
    assert isinstance(explore(frames(), names(), **WORDS), Page)
    drawn = explore(frames().__getitem__, names(), **WORDS)
    assert len(Tree(drawn.html).all("img")) == 4
    assert isinstance(explore(frames(), names(), live=True, **WORDS), ipywidgets.VBox)
    monkeypatch.setenv("SHALA_LIVE", "1")
    assert isinstance(explore(frames(), names(), **WORDS), ipywidgets.VBox)
    assert isinstance(explore(frames(), names(), live=False, **WORDS), Page)
