"""Execution of a notebook: this Python, the copy in place, and a failure that says where."""

import io
import itertools
import json
import logging
import sys

import pytest

from shala_lite.execute import Echo, execute


@pytest.fixture
def notebook(tmp_path):
    def write(*sources):
        path = tmp_path / "book" / "01_tiny.ipynb"
        path.parent.mkdir(exist_ok=True)
        code = {"cell_type": "code", "outputs": [], "execution_count": None}
        tags = [{"tags": ["parameters"]}] + [{}] * len(sources)
        cells = [
            {**code, "id": f"c{i}", "metadata": tag, "source": source}
            for i, (tag, source) in enumerate(zip(tags, sources))
        ]
        path.write_text(
            json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
        )
        return path

    return write


def outputs(path):
    cells = json.loads(path.read_text())["cells"]
    return ["".join(o.get("text", "")) for cell in cells for o in cell.get("outputs", [])]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_runs_in_this_python_whatever_kernel_the_user_has(
    tmp_path, notebook, monkeypatch, capsys
):
    foreign = tmp_path / "user" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    path = notebook("steps = 1", "import sys\nprint(sys.executable, steps)")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "01_tiny.failed.ipynb").write_text("of an earlier attempt")
    assert execute(path, folder, {"steps": 7})
    assert names(folder) == ["01_tiny.ipynb"]
    assert f"{sys.executable} 7\n" in outputs(folder / "01_tiny.ipynb")
    shown = capsys.readouterr().err
    assert "-- cell 3 of 3" in shown
    assert f"{sys.executable} 7\n" in shown


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_give_up_their_core_unless_the_user_says_otherwise(
    own, expected, tmp_path, notebook, monkeypatch
):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    path = notebook("steps = 1", "import os\nprint(os.environ['OMP_WAIT_POLICY'])")
    assert execute(path, tmp_path / "run", {})
    assert f"{expected}\n" in outputs(tmp_path / "run" / "01_tiny.ipynb")


def test_a_failure_names_notebook_cell_and_its_first_line_and_spares_the_last_copy(
    tmp_path, notebook, capsys
):
    path = notebook("steps = 1", "print('fine')", "x = steps - 7\ny = 1 / x", "print('never')")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "01_tiny.ipynb").write_text("of an earlier run")
    assert not execute(path, folder, {"steps": 7})
    shown = capsys.readouterr().err
    assert f"failed: {path}, cell 3 of 4" in shown
    assert "    x = steps - 7\nZeroDivisionError: division by zero" in shown
    assert "\x1b" not in shown
    assert names(folder) == ["01_tiny.failed.ipynb", "01_tiny.ipynb"]
    assert (folder / "01_tiny.ipynb").read_text() == "of an earlier run"
    assert "fine\n" in outputs(folder / "01_tiny.failed.ipynb")


def test_a_kernel_that_is_killed_is_a_failure_too(tmp_path, notebook, capsys):
    path = notebook("steps = 1", "import os\nos.kill(os.getpid(), 9)")
    assert not execute(path, tmp_path / "run", {"steps": 7})
    assert f"failed: {path}, its process died" in capsys.readouterr().err
    assert names(tmp_path / "run") == ["01_tiny.failed.ipynb"]


class Screen(io.StringIO):
    def isatty(self):
        return True


MESSAGES = [
    (logging.INFO, "Executing Cell 2----------------"),
    (logging.INFO, "printed\n"),
    (logging.WARNING, "\r 10%"),
    (logging.WARNING, "\r 55%"),
    (logging.WARNING, "\r100%\n"),
    (logging.WARNING, "\r  1%"),
    (logging.WARNING, "\r  2%"),
    (logging.INFO, "<Figure>"),
    (logging.INFO, "Ending Cell 2----------------"),
]


def show(stream, messages=MESSAGES, **options):
    echo = Echo(stream, 9, **options)
    for level, text in messages:
        echo.emit(logging.LogRecord("papermill", level, "", 0, text, None, None))
    return stream.getvalue()


def test_a_file_gets_each_line_of_a_progress_bar_once():
    assert show(io.StringIO()) == "-- cell 2 of 9\nprinted\n100%\n  2%\n<Figure>\n"


def test_a_file_gets_the_state_of_a_long_progress_bar_once_a_minute():
    now = itertools.count(step=25)  # seconds, at every look at the clock
    bar = [(logging.WARNING, f"\r{k:3}%") for k in range(9)] + [(logging.WARNING, "\r100%\n")]
    lines = show(io.StringIO(), bar, clock=lambda: next(now)).splitlines()
    assert lines[-1] == "100%"
    states = [int(line.rstrip("%")) for line in lines[:-1]]
    assert states
    assert set(states) < set(range(9))
    assert states == sorted(set(states))


def test_a_terminal_gets_a_progress_bar_as_it_is():
    shown = show(Screen())
    assert "\r 10%\r 55%\r100%\n\r  1%\r  2%\n<Figure>\n" in shown
