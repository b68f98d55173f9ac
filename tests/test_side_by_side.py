"""Commands at once, with real processes."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "book" / "side_by_side.py"


def load():
    """The module book/side_by_side.py."""
    spec = importlib.util.spec_from_file_location("book_side_by_side", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


module = load()
side_by_side, order = module.side_by_side, module.order
CHAPTER = """
assert rate > 0, "the rate must be positive"
from shala_lite import runs
run = runs.start("{chapter}", globals(), keys={{"nfe": "evaluations"}}, sources=["modalities"])
run.record("prior", "nfe", rate)
run.finish()
"""

# Waits until the other has come, so that it can end only if both run at once.
MEET = """
import pathlib, sys, time
here, mine, other = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(here / mine).touch()
for _ in range(600):
    if (here / other).exists():
        print("met", other)
        sys.exit()
    time.sleep(0.1)
sys.exit("nobody came")
"""


def python(code, *arguments):
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_two_run_at_once_and_their_lines_carry_their_names(tmp_path):
    commands = {"a": python(MEET, tmp_path, "a", "b"), "b": python(MEET, tmp_path, "b", "a")}
    stream = io.StringIO()
    ended = side_by_side(commands, 2, stream)
    assert {name: found.status for name, found in ended.items()} == {"a": 0, "b": 0}
    assert sorted(stream.getvalue().splitlines()) == ["a: met b", "b: met a"]


def test_one_worker_takes_one_after_the_other_and_shows_both_streams(tmp_path):
    look = "import os, sys; print(sorted(os.listdir(sys.argv[1])), file=sys.stderr)"
    touch = f"open(sys.argv[1] + '/' + sys.argv[2], 'w'); {look.split('; ')[1]}"
    commands = {n: python(f"import os, sys; {touch}", tmp_path, n) for n in "ab"}
    stream = io.StringIO()
    side_by_side(commands, 1, stream)
    assert stream.getvalue().splitlines() == ["a: ['a']", "b: ['a', 'b']"]


def test_cores_are_shared_and_a_number_of_threads_that_was_set_stays(monkeypatch):
    say = python("import os; print(os.environ['OMP_NUM_THREADS'])")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for given, expected in ((None, "4"), ("3", "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        stream = io.StringIO()
        side_by_side({"a": say}, 2, stream)
        assert stream.getvalue() == f"a: {expected}\n"


def test_after_a_failure_nothing_is_started_and_what_runs_may_end(tmp_path):
    slow = "import pathlib, sys, time; time.sleep(2); pathlib.Path(sys.argv[1]).touch()"
    commands = {
        "slow": python(slow, tmp_path / "slow"),
        "bad": python("raise SystemExit(3)"),
        "never": python(slow, tmp_path / "never"),
    }
    ended = side_by_side(commands, 2, io.StringIO())
    assert {name: found.status for name, found in ended.items()} == {"slow": 0, "bad": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["slow"]


def test_an_interrupt_ends_what_runs(tmp_path):
    class Interrupted(io.StringIO):
        def write(self, text):
            raise KeyboardInterrupt

    late = "import pathlib, sys, time; print('up', flush=True); time.sleep(60); "
    late += "pathlib.Path(sys.argv[1]).touch()"
    commands = {name: python(late, tmp_path / name) for name in "ab"}
    with pytest.raises(KeyboardInterrupt):
        side_by_side(commands, 2, Interrupted())
    assert not list(tmp_path.iterdir())  # neither came to its end


def test_the_first_chapters_of_each_data_set_begin_first():
    data_of = {"01": "digits", "02": "digits", "03": "birds", "04": "digits", "05": "birds"}
    assert order(data_of) == ["01", "03", "02", "05", "04"]


def test_an_unknown_profile_is_named(project):
    done = project("--profile", "quik", **{"01_first": 1.0})
    assert done.returncode == 2
    assert "'quik'" in done.stderr
    assert "quick" in done.stderr


def test_no_workers_is_an_error():
    with pytest.raises(ValueError, match="workers is 0; expected at least 1"):
        side_by_side({}, 0, io.StringIO())


@pytest.fixture
def project(tmp_path):
    """Makes a book of chapters, each with this rate; gives a function that executes it."""

    def execute(*options, **rates):
        book = tmp_path / "book"
        (tmp_path / "pyproject.toml").write_text('[project]\nname = "shala_lite"\n')
        for chapter, rate in rates.items():
            values = dict(
                profile="quick", dataset="polymnist", source="embedded", root=None, seed=0
            )
            values["rate"] = rate
            lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
            cells = [(lines, ["parameters"]), (CHAPTER.format(chapter=chapter), [])]
            kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
            notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}}
            notebook["cells"] = [
                {
                    "cell_type": "code",
                    "id": f"c{i}",
                    "source": source,
                    "metadata": {"tags": tags},
                    "outputs": [],
                    "execution_count": None,
                }
                for i, (source, tags) in enumerate(cells)
            ]
            (book / "profiles" / "quick").mkdir(parents=True, exist_ok=True)
            (book / f"{chapter}.ipynb").write_text(json.dumps(notebook))
            yaml = "\n".join(f"{name}: {json.dumps(value)}" for name, value in values.items())
            (book / "profiles" / "quick" / f"{chapter}.yaml").write_text(yaml)
        environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
        environment.pop("SHALA_RUNS", None)
        command = [sys.executable, str(SCRIPT), "--workers", "2", *options]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return execute


def test_every_chapter_of_a_book_is_executed_and_not_again(project, tmp_path):
    done = project(**{"01_first": 1.0, "02_second": 2.0})
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        "01_first",
        "02_second",
        "all",
    ]
    manifests = sorted((tmp_path / "runs").glob("*/*/manifest.json"))
    assert [path.parts[-3] for path in manifests] == ["01_first", "02_second"]
    before = [path.read_text() for path in manifests]
    again = project()
    assert again.returncode == 0, again.stderr
    assert "02_second: finished before" in again.stderr
    assert [path.read_text() for path in manifests] == before


def test_a_chapter_that_fails_is_named(project):
    done = project(**{"01_first": -1.0, "02_second": 2.0})
    assert done.returncode == 1
    assert "01_first: AssertionError: the rate must be positive" in done.stderr
    assert "failed: 01_first, exit status 1" in done.stderr.splitlines()
