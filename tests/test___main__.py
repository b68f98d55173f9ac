"""The command line, with real notebooks in a small project of their own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shala_lite
from shala_lite import profiles, runs
from shala_lite.__main__ import main

HERE = str(Path(shala_lite.__file__).parents[1])
PARAMETERS = {
    "profile": "quick",
    "dataset": "polymnist",
    "source": "embedded",
    "root": None,
    "seed": 0,
    "rate": 0.5,
    "widths": [8, 16],
}
RUN = """
assert rate > 0, "the rate must be positive"
from shala_lite import runs
run = runs.start("{chapter}", globals(), keys={{"nfe": "evaluations"}}, sources=["modalities"])
run.record("prior", "nfe", rate * 2)
print(run.finish())
"""


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    monkeypatch.delenv("SHALA_RUNS", raising=False)
    monkeypatch.setenv("PYTHONPATH", HERE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shala_lite"\n')
    book = tmp_path / "book"
    (book / "profiles" / "quick").mkdir(parents=True)
    cell = "\n".join(f"{name} = {value!r}" for name, value in PARAMETERS.items())
    for chapter in ("01_first", "02_second"):
        sources = [(cell, ["parameters"]), (RUN.format(chapter=chapter), [])]
        code = {"cell_type": "code", "outputs": [], "execution_count": None}
        cells = [
            {**code, "id": f"c{len(text)}", "metadata": {"tags": tags}, "source": text}
            for text, tags in sources
        ]
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
        notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        (book / f"{chapter}.ipynb").write_text(json.dumps(notebook))
        yaml = "\n".join(f"{name}: {json.dumps(value)}" for name, value in PARAMETERS.items())
        (book / "profiles" / "quick" / f"{chapter}.yaml").write_text(yaml)
    return book


def test_all_chapters_run_in_order_each_in_the_folder_that_its_parameters_name(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("SHALA_RUNS", "")  # main sets it; let the test put it back
    assert main(["run", "all", "--profile", "quick"]) == 0
    shown = capsys.readouterr().out.splitlines()
    folders = [Path(line.removeprefix("results: ")) for line in shown if "results: " in line]
    assert folders == [runs.run_folder(c, PARAMETERS) for c in ("01_first", "02_second")]
    for folder in folders:
        assert folder.is_relative_to(tmp_path / "runs")
        chapter = folder.parent.name
        kept = {path.name for path in folder.iterdir()}
        assert kept == {f"{chapter}.ipynb", "metrics.json", "manifest.json"}
        assert str(folder) in (folder / f"{chapter}.ipynb").read_text()
    assert [line.split()[-1] for line in shown[-3:]] == ["01_first", "02_second", "all"]


def test_resumed_only_what_is_not_finished_or_of_other_code_runs(
    tmp_path, book, capsys, monkeypatch
):
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "runs"))
    both = ["run", "02_second", "01_first"]

    def resume():
        assert main([*both, "--resume"]) == 0
        shown = capsys.readouterr().out.splitlines()
        return [Path(line.split(": ")[1]).parent.name for line in shown if "results: " in line]

    assert main(["run", "02_second"]) == 0
    capsys.readouterr()
    assert resume() == ["01_first"]
    assert resume() == []
    notebook = book / "02_second.ipynb"
    notebook.write_text(notebook.read_text().replace("rate * 2", "rate * 3"))
    assert resume() == ["02_second"]
    manifest = runs.run_folder("01_first", PARAMETERS) / "manifest.json"
    manifest.write_text(re.sub(r'("shala_lite.modalities": ")..', r"\1zz", manifest.read_text()))
    assert resume() == ["01_first"]
    folder = runs.run_folder("02_second", PARAMETERS)
    for damage in ("manifest.json", "metrics.json"):
        (folder / damage).write_text("{")
        assert resume() == ["02_second"]
    (folder / "manifest.json").unlink()
    assert resume() == ["02_second"]
    # a later run that failed, or was killed, after it had written its own manifest
    for state in ("failed", "running"):
        (folder / f"02_second.{state}.ipynb").write_text("{}")
        assert resume() == ["02_second"]
        assert resume() == []


def test_parameters_out_folder_and_publishing_as_a_person_types_them(tmp_path, book, capsys):
    command = [sys.executable, "-m", "shala_lite", "run", "01_first", "--profile", "quick"]
    command += ["-p", "seed", "3", "-p", "rate", "2.5e-1", "-p", "widths", "[4]"]
    command += ["--out", str(tmp_path / "elsewhere")]
    done = subprocess.run(command, cwd=book, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.split("results: ")[1].strip())
    assert folder.parent == tmp_path / "elsewhere" / "01_first"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["parameters"] == {**PARAMETERS, "seed": 3, "rate": 0.25, "widths": [4]}
    assert main(["publish", str(folder)]) == 0
    shown = capsys.readouterr()
    results = book / "results" / "01_first" / "polymnist-embedded-quick"
    assert f"published: {results}" in shown.out
    assert json.loads((results / "metrics.json").read_text()) == {"prior/nfe": 0.5, "seeds": 1}
    assert ("not committed" in shown.err) is (manifest["dirty"] is not False)


def test_plain_papermill_gives_the_same_folder(tmp_path, book):
    yaml = book / "profiles" / "quick" / "01_first.yaml"
    command = [sys.executable, "-m", "papermill", "book/01_first.ipynb", "out.ipynb", "-f"]
    command += [str(yaml), "-p", "seed", "1", "-k", "python3", "--no-progress-bar"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ})
    folder = runs.run_folder("01_first", profiles.resolve("01_first", "quick", {"seed": 1}))
    assert (folder / "metrics.json").exists()


def test_a_failing_notebook_gives_1_and_stops_before_the_next_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "runs"))
    assert main(["run", "all", "-p", "rate", "-1.0"]) == 1
    shown = capsys.readouterr().err
    assert "01_first.ipynb, cell 2 of 2" in shown
    assert "the rate must be positive" in shown
    assert not (tmp_path / "runs" / "02_second").exists()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["run", "03_third"], "no chapter '03_third'.*there are 01_first, 02_second"),
        (["run", "01_first", "--profile", "laptop"], "no profile 'laptop'; there are quick"),
        (["run", "01_first", "-p", "sead", "1"], "-p: unknown parameter 'sead'"),
        (["run", "all", "-p", "seed", "1.5"], "seed is 1.5, a float; expected int"),
        (["publish", "nowhere"], "nowhere has no manifest.json"),
    ],
)
def test_a_request_that_makes_no_sense_gives_2_and_one_line(arguments, names, capsys, monkeypatch):
    monkeypatch.setenv("SHALA_RUNS", "")
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(names, line)
    shutil.rmtree("book")
    assert main(["run", "01_first"]) == 2
