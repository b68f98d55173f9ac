"""Fixtures and command-line settings that several tests share."""

import os

# Before torch is imported: two pytest workers on two cores, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# The tests' data lie on the CPU; those of `test_recorded` alone want a GPU, where it is named.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from pathlib import Path

import pytest
from local_server import Server

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the project."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the project's runs/, nor into those that the shell names."""
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where rendered views are kept for the time of the tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))


@pytest.fixture
def server():
    """Public addresses, played on this machine."""
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()
