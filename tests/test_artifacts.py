"""Artifacts: made once, found again, and never used when stale, damaged or half made."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shala_lite import artifacts
from shala_lite.artifacts import artifact, damage, record


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs" / "artifacts"


class Maker:
    """Counts its calls, and writes a result, a file in a folder and checkpoints."""

    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "weights.bin").write_bytes(b"w" * 1000)
        (folder / "parts").mkdir(exist_ok=True)
        (folder / "parts" / "a.json").write_text("{}")
        (folder / "checkpoint.pt").write_text("state")
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "step_5").write_text("state")


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def get(make, config=None, **options):
    return artifact("vae", {"steps": 5} if config is None else config, ["fusion"], make, **options)


def test_it_is_made_once_and_holds_what_was_made_without_checkpoints():
    make = Maker()
    folder = get(make)
    assert get(make) == folder == get(None)
    assert make.calls == 1
    assert names(folder) == ["artifact.json", "parts/a.json", "weights.bin"]
    known = record(folder)
    assert known["config"] == {"steps": 5}
    assert "shala_lite.fusion" in known["code"]
    assert set(known["files"]) == {"parts/a.json", "weights.bin"}
    assert known["resumed"] is False
    assert folder.name.startswith("vae-")


def test_another_configuration_or_other_code_is_another_artifact(capsys, monkeypatch):
    make = Maker()
    first = get(make)
    assert get(make, {"steps": 6}) != first
    assert "stale" not in capsys.readouterr().err
    monkeypatch.setattr(artifacts, "module_digests", lambda _: {"shala_lite.fusion": "changed"})
    assert get(make) != first
    assert make.calls == 3
    message = capsys.readouterr().err
    assert f"{first.name} is stale" in message
    assert "shala_lite.fusion" in message


def test_equal_configurations_are_one_artifact():
    make = Maker()
    one = get(make, {"widths": (64, 128), "rate": 1.0})
    assert get(make, {"rate": 1, "widths": [64, 128]}) == one
    assert make.calls == 1


@pytest.mark.parametrize("config", [{"data": Path("x")}, {"sizes": {1, 2}}, {1: "one"}])
def test_a_configuration_that_is_no_json_is_an_error(config):
    with pytest.raises(TypeError, match="config"):
        get(Maker(), config)


def test_kinds_are_words():
    with pytest.raises(ValueError, match=r"kind is '\.\./vae'"):
        artifact("../vae", {}, [], Maker())


def truncate(folder):
    (folder / "weights.bin").write_bytes(b"w" * 999)


def flip(folder):
    (folder / "weights.bin").write_bytes(b"w" * 999 + b"v")


def lose(folder):
    (folder / "parts" / "a.json").unlink()


def cut_record(folder):
    path = folder / "artifact.json"
    path.write_text(path.read_text()[:-30])


def forge_record(folder):
    path = folder / "artifact.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "files": {}}))


@pytest.mark.parametrize("harm", [truncate, flip, lose, cut_record, forge_record])
def test_a_damaged_one_is_moved_aside_with_a_warning_and_made_anew(harm, store):
    make = Maker()
    folder = get(make)
    harm(folder)
    harmed = names(folder)
    with pytest.raises(ValueError, match="damaged"):
        get(None)
    aside = store / f"{folder.name}.damaged-1"
    with pytest.warns(UserWarning, match=rf"{folder.name} is damaged .*{aside.name}"):
        assert get(make) == folder
    assert make.calls == 2
    assert names(aside) == harmed
    assert damage(folder) is None
    harm(folder)
    with pytest.warns(UserWarning, match="damaged-2"):
        get(make)


def test_reading_only_names_what_is_missing_and_how_to_make_it(store):
    with pytest.raises(FileNotFoundError, match=r"no vae vae-[0-9a-f]{12} .*make run CHAPTER=03"):
        get(None, how="make run CHAPTER=03_fused_encoder")
    assert not store.exists()


def test_a_failing_make_keeps_the_partial_folder_and_passes_its_error_on(store):
    def fail(folder):
        (folder / "checkpoint.pt").write_text("step 3")
        raise FloatingPointError("loss is NaN")

    with pytest.raises(FloatingPointError, match="NaN"):
        get(fail)
    (partial,) = store.glob("*.partial")

    def go_on(folder):
        assert folder == partial
        assert (folder / "checkpoint.pt").read_text() == "step 3"
        (folder / "weights.bin").write_text("done")

    folder = get(go_on)
    assert names(folder) == ["artifact.json", "weights.bin"]
    assert record(folder)["resumed"] is True
    assert not partial.exists()


def test_a_make_that_writes_nothing_but_checkpoints_makes_no_artifact(store):
    with pytest.raises(RuntimeError, match="wrote no file"):
        get(lambda folder: (folder / "checkpoint.pt").touch())
    assert [p.name for p in store.iterdir() if p.suffix not in (".partial", ".lock")] == []


def test_killed_between_the_renaming_and_the_sweeping_it_is_swept_when_found():
    make = Maker()
    folder = get(make)
    (folder / "checkpoint.pt").write_text("left over")
    assert get(make) == folder
    assert "checkpoint.pt" not in names(folder)
    assert make.calls == 1


PROCESS = """
import sys, time
from pathlib import Path
from shala_lite.artifacts import artifact

def make(folder):
    with open(signs / "made", "a") as log:
        log.write(sys.argv[2] + "\\n")
    (folder / "weights.bin").write_text("half")
    (signs / ("begun-" + sys.argv[2])).touch()
    while not (signs / "go").exists():
        time.sleep(0.02)
    (folder / "weights.bin").write_text("whole")

signs = Path(sys.argv[1])
print(artifact("vae", {"steps": 5}, ["fusion"], make))
"""


def process(signs, name):
    command = [sys.executable, "-c", PROCESS, str(signs), name]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def until(condition, *processes):
    while not condition():
        assert all(p.poll() is None for p in processes), [p.communicate() for p in processes]
        time.sleep(0.02)


def test_of_two_processes_one_makes_it_and_the_other_waits_and_finds_it(tmp_path, store):
    first = process(tmp_path, "first")
    until((tmp_path / "begun-first").exists, first)
    second = process(tmp_path, "second")
    assert second.stderr is not None
    waiting = second.stderr.readline()  # comes before the first one is let go
    assert "waiting for" in waiting
    assert str(next(store.glob("vae-*.lock"))) in waiting
    (tmp_path / "go").touch()
    found = [p.communicate()[0].strip() for p in (first, second)]
    assert first.returncode == second.returncode == 0
    assert found[0] == found[1]
    assert (tmp_path / "made").read_text() == "first\n"
    assert (Path(found[0]) / "weights.bin").read_text() == "whole"


def test_killed_while_making_nothing_is_seen_and_the_next_one_goes_on(tmp_path, store):
    first = process(tmp_path, "first")
    until((tmp_path / "begun-first").exists, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (partial,) = store.glob("*.partial")
    assert (partial / "weights.bin").read_text() == "half"
    assert not partial.with_suffix("").exists()
    (tmp_path / "go").touch()
    second = process(tmp_path, "second")
    found = Path(second.communicate()[0].strip())
    assert found == partial.with_suffix("")
    assert damage(found) is None
    assert (found / "weights.bin").read_text() == "whole"
    assert record(found)["resumed"] is True
    assert (tmp_path / "made").read_text() == "first\nsecond\n"
