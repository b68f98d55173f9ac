"""Tables say what they hold and where it comes from; what has not been run is said so."""

import re
from html.parser import HTMLParser

import pytest

from shala_lite import metrics, publish, report, runs
from shala_lite.training import History

PARAMETERS = {"profile": "full", "dataset": "d", "source": "real", "root": None, "seed": 0}


class Cells(HTMLParser):
    """Rows of a table as lists of text."""

    def __init__(self, page):
        super().__init__()
        self.rows = []
        self.feed(page.html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and self.lasttag in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "runs"))

    def make(**changes):
        found = runs.Run("01_c", PARAMETERS | changes, metrics.KEYS)
        found.record("prior", "recall", 0.25)
        found.record("judge", "judge_accuracy", 0.5, slice="m0")
        return found

    return make


def test_a_table_holds_its_cells_and_escapes_them():
    page = report.table(["", "a<b"], [["x & y", 1], ["z", "</td>"]], caption="c > d")
    assert Cells(page).rows == [["", "a<b"], ["x & y", "1"], ["z", "</td>"]]
    assert "c &gt; d" in page.html
    assert page.text.splitlines()[1].split() == ["x", "&", "y", "1"]


def test_a_short_row_is_an_error():
    with pytest.raises(ValueError, match="1 cells; expected 2"):
        report.table(["", "a"], [["x"]])


def test_numbers_keep_rows_and_columns_apart():
    page = report.numbers({"r": {"a_b": 1, "c": 2}, "s": {"c": 4, "a_b": 3}}, form=".1f")
    assert Cells(page).rows == [["", "a b", "c"], ["r", "1.0", "2.0"], ["s", "3.0", "4.0"]]
    assert "-0" not in report.numbers({"r": {"a": -0.0001}}).html
    page = report.numbers({"r": {"a": float("nan"), "c": 2}}, form=".0f")
    assert Cells(page).rows[1] == ["r", "-", "2"]
    with pytest.raises(ValueError, match="rows is empty"):
        report.numbers({})
    lacking = report.numbers({"r": {"a": 1, "c": 2}, "s": {"c": 4}}, form=".0f")
    assert Cells(lacking).rows[2] == ["s", "-", "4"]


def test_trainings_of_one_name_are_told_apart_by_their_settings():
    first, second = History(steps=[10], seconds=1.0), History(steps=[20], seconds=2.0)
    page = report.trainings({"stage 1": first, "stage 1 (beta 2.0)": second})
    assert Cells(page).rows[1:] == [["stage 1", "10", "1"], ["stage 1 (beta 2.0)", "20", "2"]]


def test_trainings_are_named_without_their_settings():
    long, short = History(steps=[10, 20], seconds=3.4), History(steps=[5], seconds=1.0)
    page = report.trainings({"stage 1": long, "stage 1 moe (depth 2, hidden 256)": short})
    assert Cells(page).rows == [
        ["", "steps", "seconds"],
        ["stage 1", "20", "3"],
        ["stage 1 moe", "5", "1"],
    ]


def test_scores_come_from_the_run_with_direction_and_origin(run):
    page = report.scores(run(), ["prior", "judge"], ["recall", "judge_accuracy@m0"], note="N.")
    assert Cells(page).rows == [
        ["", "recall\u00a0↑", "judge accuracy (m0)\u00a0↑"],
        ["prior", "0.250", "-"],
        ["judge", "-", "0.500"],
    ]
    assert "N. d, real data, profile full, seed 0, 1 seed." in page.text


def test_counts_have_no_decimals(run):
    found = run()
    found.record("prior", "nfe", 15, slice="joint")
    assert Cells(report.scores(found, ["prior"], ["nfe@joint", "recall"])).rows[1] == [
        "prior",
        "15",
        "0.250",
    ]


def test_an_unregistered_key_is_an_error(run):
    with pytest.raises(ValueError, match="'recal' is not registered"):
        report.scores(run(), ["prior"], ["recal"])


def test_full_scale_says_what_is_missing_and_begins_with_the_larger_run(run, tmp_path):
    book = tmp_path / "book"
    book.mkdir()
    ask = ("01_c", "d", (["prior", "another"], ["recall", "judge_accuracy@m0"]))
    assert "No run" in report.at_full_scale(*ask, book=book).html
    laptop = run(profile="laptop")
    laptop.finish()
    publish.publish(laptop.folder, book)
    small = report.at_full_scale(*ask, book=book)
    assert "No run at full scale" in small.html
    assert "profile laptop" in small.html
    # neither the row nor the column that the runs know nothing of
    assert Cells(small).rows == [
        ["", "recall\N{NO-BREAK SPACE}\N{UPWARDS ARROW}"],
        ["prior", "0.250"],
    ]
    full = run()
    full.finish()
    publish.publish(full.folder, book)
    large = report.at_full_scale(*ask, book=book)
    assert "No run" not in large.html
    assert re.findall(r"profile (\w+)", large.html) == ["full", "laptop"]
    assert large.html.count("<table") == 2


def test_several_tables_of_one_scale_share_one_note(run, tmp_path):
    book = tmp_path / "book"
    book.mkdir()
    made = run()
    made.finish()
    publish.publish(made.folder, book)
    tables = ((["prior"], ["recall"]), (["nobody"], ["recall"]), (["judge"], ["judge_accuracy@m0"]))
    page = report.at_full_scale("01_c", "d", *tables, book=book)
    assert page.html.count("<table") == 2
    assert re.findall(r"profile (\w+)", page.html) == ["full"]
    assert page.html.rindex("profile full") > page.html.rindex("<table")


def test_full_scale_shows_the_images_that_the_run_has(run, tmp_path):
    from matplotlib.figure import Figure

    book = tmp_path / "book"
    book.mkdir()
    made = run()
    made.save_image("sets", Figure(figsize=(1, 1)))
    made.finish()
    publish.publish(made.folder, book)
    images = {"sets": "sets of views", "absent": "nothing"}
    page = report.at_full_scale("01_c", "d", (["prior"], ["recall"]), images=images, book=book)
    assert re.findall(r'<img[^>]*alt="([^"]*)"', page.html) == ["sets of views"]
    later = report.at_full_scale("01_c", "d", (["prior"], ["hull_score"]), images=images, book=book)
    assert "No published run has these numbers yet" in later.html
    assert "<table" not in later.html
    assert len(re.findall("<img", later.html)) == 1
