"""Paths, canonical JSON and atomic writes."""

import os

import pytest

from shala_lite import files

PROJECT = '[project]\nname = "shala-lite"\n'


def test_root_is_the_named_folder_else_the_projects_else_the_working_one(tmp_path, monkeypatch):
    inner = tmp_path / "clone" / "book" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.delenv("SHALA_RUNS", raising=False)
    monkeypatch.chdir(inner)
    assert files.root() == inner / "runs"
    (tmp_path / "clone" / "pyproject.toml").write_text(PROJECT)
    assert files.root() == tmp_path / "clone" / "runs"
    assert files.book() == tmp_path / "clone" / "book"
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "elsewhere"))
    assert files.root() == tmp_path / "elsewhere"


@pytest.mark.parametrize("text", ['[project]\nname = "other"\n', "[project\n", "[tool]\n", None])
def test_another_project_is_not_taken_for_this_one(tmp_path, text):
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert not files.is_project(tmp_path)


def test_canonical_is_equal_for_equal_values_only():
    one = {"a": 1, "b": [1.0, None, True], "c": "x"}
    same = {"c": "x", "b": (1, None, True), "a": 1.0}
    assert files.canonical(one) == files.canonical(same)
    for other in ({**one, "a": 1.5}, {**one, "a": True}, {**one, "a": "1"}, {**one, "d": None}):
        assert files.canonical(other) != files.canonical(one)


@pytest.mark.parametrize(
    ("value", "error", "names"),
    [
        ({"a": [0, {"b": object()}]}, TypeError, r"config\['a'\]\[1\]\['b'\] is a object"),
        ({1: 2}, TypeError, "key 1"),
        ({"a": float("nan")}, ValueError, r"config\['a'\] is nan"),
    ],
)
def test_what_is_no_plain_json_is_an_error_that_names_the_place(value, error, names):
    with pytest.raises(error, match=names):
        files.canonical(value, "config")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    files.write_json(path, {"a": 1})

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_reading_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json cannot be read"):
        files.read_json(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"cut\.json is damaged"):
        files.read_json(tmp_path / "cut.json")
