"""Profiles and the notebook's parameters: names, types, and what the errors say."""

import json
from pathlib import Path

import pytest

from shala_lite import profiles
from shala_lite.datasets import archive
from shala_lite.experiments import VAL_MOST

BOOK = Path(__file__).resolve().parent.parent / "book"
CELL = """
# what the chapter can be told
profile = "quick"
steps = 10
rate = 1e-3
root = None
size: int | None = 500
widths = [8, 16]
guided = True
"""
QUICK = """
profile: quick
steps: 10
rate: 0.001
root: null
size: 500
widths: [8, 16]
guided: true
"""


def write_notebook(path, *cells):
    code = {"cell_type": "code", "outputs": [], "execution_count": None}
    path.write_text(
        json.dumps(
            {
                "cells": [{**code, "metadata": {"tags": t}, "source": s} for t, s in cells],
                "metadata": {},
                "nbformat": 4,
                "nbformat_minor": 4,
            }
        )
    )


@pytest.fixture
def book(tmp_path):
    book = tmp_path / "book"
    for profile, text in (("quick", QUICK), ("full", QUICK.replace("quick", "full"))):
        (book / "profiles" / profile).mkdir(parents=True)
        (book / "profiles" / profile / "01_tiny.yaml").write_text(text)
    write_notebook(book / "01_tiny.ipynb", ([], "import os"), (["parameters"], CELL))
    write_notebook(book / "02_next.ipynb", (["parameters"], "profile = 'quick'"))
    write_notebook(book / "draft.ipynb")
    return book


def edit(book, old, new):
    path = book / "profiles" / "quick" / "01_tiny.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_chapters_and_profiles_are_listed_in_order(book):
    assert profiles.chapters(book) == ["01_tiny", "02_next"]
    assert profiles.profile_names("01_tiny", book) == ["full", "quick"]
    assert profiles.profile_names("02_next", book) == []


def test_the_profiles_values_with_overrides_are_the_parameters(book):
    quick = profiles.resolve("01_tiny", "quick", book=book)
    found = profiles.notebook_parameters(book / "01_tiny.ipynb")
    assert quick == {name: parameter.value for name, parameter in found.items()}
    changed = profiles.resolve("01_tiny", "quick", {"steps": 3, "root": "/data"}, book)
    assert changed == {**quick, "steps": 3, "root": "/data"}


@pytest.mark.parametrize(
    ("chapter", "profile", "names"),
    [
        ("01_tinny", "quick", "no chapter '01_tinny'.*there are 01_tiny, 02_next"),
        ("01_tiny", "quik", "no profile 'quik'; there are full, quick"),
        ("02_next", "quick", "no profile 'quick'; there are none"),
    ],
)
def test_an_unknown_chapter_or_profile_lists_those_there_are(book, chapter, profile, names):
    with pytest.raises(ValueError, match=names):
        profiles.resolve(chapter, profile, book=book)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("steps", "step", r"quick/01_tiny\.yaml: unknown parameter 'step' .did you mean steps"),
        ("steps: 10\n", "", r"01_tiny\.yaml: missing steps; there are guided, profile"),
        ("steps: 10", "steps: 10.5", "steps is 10.5, a float; expected int"),
        ("steps: 10", "steps: true", "steps is True, a bool; expected int"),
        ("steps: 10", "steps:", "steps is None, a NoneType; expected int"),
        ("rate: 0.001", "rate: 1e-3", "rate is '1e-3', a str; expected float; YAML .* 1.0e-3"),
        ("guided: true", "guided: 1", "guided is 1, a int; expected bool"),
        ("widths: [8, 16]", "widths: 8", "widths is 8, a int; expected list"),
        ("profile: quick", "profile: full", "says profile: full; expected quick"),
        ("profile: quick", "- profile", "is not YAML|expected lines"),
        (QUICK, "[1, 2]", "expected lines `name: value`"),
    ],
)
def test_a_profile_that_does_not_fit_its_notebook_is_an_error(book, old, new, names):
    edit(book, old, new)
    with pytest.raises(ValueError, match=names):
        profiles.resolve("01_tiny", "quick", book=book)


def test_whole_numbers_are_floats_too_and_none_goes_where_it_is_said_to(book):
    edit(book, "rate: 0.001", "rate: 1")
    edit(book, "size: 500", "size: null")
    found = profiles.resolve("01_tiny", "quick", book=book)
    assert found["rate"] == 1
    assert found["size"] is None


@pytest.mark.parametrize(("name", "value"), [("sted", 1), ("steps", "many"), ("guided", 1)])
def test_overrides_are_checked_as_the_profile_is(book, name, value):
    with pytest.raises(ValueError, match=f"-p: .*{name}"):
        profiles.resolve("01_tiny", "quick", {name: value}, book)


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([([], "a = 1")], "0 cells tagged `parameters`"),
        ([(["parameters"], "a = 1"), (["parameters"], "b = 1")], "2 cells tagged"),
        ([(["parameters"], "a = 1\nimport os")], "'import os' assigns no name"),
        ([(["parameters"], "a = 2 ** 10")], r"'a = 2 \*\* 10' is no literal"),
    ],
)
def test_a_parameters_cell_holds_one_literal_a_name(tmp_path, cells, names):
    write_notebook(tmp_path / "01_bad.ipynb", *cells)
    with pytest.raises(ValueError, match=names):
        profiles.notebook_parameters(tmp_path / "01_bad.ipynb")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("2.0", 2.0),
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", "None"),
        ("[1, 2]", [1, 2]),
        ("polymnist", "polymnist"),
        ("2026-01-02", "2026-01-02"),
        ("[1,", "[1,"),
    ],
)
def test_values_on_the_command_line(text, value):
    found = profiles.parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_without_a_book_the_error_says_where_to_be(tmp_path):
    with pytest.raises(ValueError, match="inside a clone"):
        profiles.chapters(tmp_path / "nowhere")


@pytest.mark.parametrize("profile", ["laptop", "full"])
def test_profiles_for_real_digits_fit_the_published_archive(profile):
    """60,000 training and 10,000 test items, which cannot be extended."""
    chapters = sorted(path.stem for path in (BOOK / "profiles" / profile).glob("*.yaml"))
    asked = {chapter: profiles.resolve(chapter, profile, book=BOOK) for chapter in chapters}
    asked = {c: p for c, p in asked.items() if (p["dataset"], p["source"]) == ("polymnist", "real")}
    assert len(asked) > 5
    for p in asked.values():
        archive.positions(60_000, "train", p["train_size"], 0)
        archive.positions(60_000, "val", min(p["test_size"], VAL_MOST), 0)
        archive.positions(10_000, "test", p["test_size"], 0)
