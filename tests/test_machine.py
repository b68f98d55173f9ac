"""Commit, versions, device and measurements."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from shala_lite import machine


@pytest.fixture
def clone(tmp_path):
    """A small project under git, everything committed."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shala-lite"\n')
    for folder in ("shala_lite", "book/results", "data_scripts"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file.txt").write_text("as committed")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "start")
    return tmp_path


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_gits_and_dirty_follows_the_code(clone):
    head = git(clone, "rev-parse", "HEAD")
    assert machine.commit(clone) == {"commit": head, "dirty": False}
    (clone / "book" / "results" / "file.txt").write_text("published")
    assert machine.commit(clone)["dirty"] is False
    (clone / "shala_lite" / "new.py").write_text("")
    assert machine.commit(clone) == {"commit": head, "dirty": True}


def test_without_git_or_outside_the_project_the_commit_is_unknown(clone, monkeypatch):
    unknown = {"commit": None, "dirty": None}
    (clone / "other").mkdir()
    assert machine.commit(clone / "other") == unknown
    monkeypatch.setenv("PATH", "")
    assert machine.commit(clone) == unknown


def test_versions_are_those_installed():
    found = machine.versions()
    assert found["numpy"] == version("numpy")
    assert found["python"] == sys.version.split()[0]
    assert set(found) == {"python", "shala_lite", "torch", "numpy", "lightning", "scikit-learn"}


def test_now_is_utc():
    time = datetime.fromisoformat(machine.now())
    assert time.utcoffset() == timedelta(0)


def test_the_device_is_the_one_that_was_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(FakeCuda()))
    assert machine.device() == {"device": "GPU of the test", "threads": 3}
    unused = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(unused))
    assert machine.device()["device"] not in ("", "GPU of the test")


class FakeCuda:
    """Keeps one peak, as CUDA does, in bytes."""

    def __init__(self):
        self.peak = 0

    def is_initialized(self):
        return True

    def get_device_name(self):
        return "GPU of the test"

    def max_memory_allocated(self):
        return self.peak

    def reset_peak_memory_stats(self):
        self.peak = 0

    def use(self, mib):
        self.peak = max(self.peak, mib * 2**20)


def fake_torch(cuda):
    return SimpleNamespace(cuda=cuda, get_num_threads=lambda: 3)


def test_nested_meters_each_know_their_own_peak(monkeypatch):
    cuda = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", fake_torch(cuda))
    cuda.use(1000)  # before any block
    with machine.Meter() as outer:
        cuda.use(70)
        with machine.Meter() as inner:
            cuda.use(50)
        cuda.use(60)
        with machine.Meter() as later:
            cuda.use(20)
    peaks = [meter.report()["peak_memory_mib"] for meter in (outer, inner, later)]
    assert peaks == [70, 50, 20]
    assert outer.report()["memory_of"] == "cuda"
    assert outer.seconds >= inner.seconds + later.seconds


NESTED = """
import json
from shala_lite.machine import Meter

def allocate(mib):
    block = bytearray(mib * 2**20)
    block[::4096] = b"x" * len(block[::4096])

with Meter() as outer:
    with Meter() as first:
        allocate(128)
    with Meter() as second:
        allocate(64)
print(json.dumps([meter.report() for meter in (outer, first, second)]))
"""


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system keeps one peak for ever"
)
def test_on_the_processor_peaks_are_of_resident_memory_and_nest_too():
    # In a process of its own: what other tests leave to be freed would move these peaks.
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outer, first, second = json.loads(done.stdout)
    assert first["memory_of"] == "process"
    assert outer["peak_memory_mib"] == first["peak_memory_mib"]
    assert 80 > first["peak_memory_mib"] - second["peak_memory_mib"] > 48


def test_cuda_that_comes_into_use_inside_a_block_is_what_counts(monkeypatch):
    cuda = FakeCuda()
    with machine.Meter() as meter:
        monkeypatch.setitem(sys.modules, "torch", fake_torch(cuda))
        cuda.use(5)
    assert meter.report()["memory_of"] == "cuda"
    assert meter.report()["peak_memory_mib"] == 5


def test_where_linux_tells_no_peak_the_largest_so_far_is_taken():
    block = bytearray(8 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert machine._largest_mib() > 8


def test_a_block_that_raises_closes_its_meter():
    meter = machine.Meter()
    with pytest.raises(KeyError), meter:
        raise KeyError
    assert meter not in machine.Meter._open
