"""The preparation of real MNIST-SVHN-Text, on small files in the formats of MNIST and SVHN."""

import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from small_files import svhn_bytes, write_mnist, write_svhn

from data_scripts import download as downloads
from data_scripts import mnist
from data_scripts import mst as script
from shala_lite.datasets import load_dataset
from shala_lite.datasets.idx import MNIST_MD5
from shala_lite.datasets.svhn import SVHN_MD5

REAL = Path(os.environ.get("SHALA_DATA") or Path(__file__).parents[2] / "shared" / "data")
STEMS = sorted(f"{stem}.gz" for stem in MNIST_MD5)


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A folder with small copies of MNIST and SVHN, taken for the real ones while the test runs."""
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    write_mnist(tmp_path / "local" / "mnist", monkeypatch)
    write_svhn(tmp_path / "local" / "svhn", monkeypatch)
    return tmp_path / "local"


@pytest.fixture
def published(local, server, monkeypatch):
    """The same files at the public addresses."""
    for path in (local / "mnist").iterdir():
        server.files[f"mnist/{path.name}"] = path.read_bytes()
    for path in (local / "svhn").iterdir():
        server.files[f"housenumbers/{path.name}"] = path.read_bytes()
    monkeypatch.setattr(mnist, "MNIST_MIRRORS", (f"{server.address}mnist/",))
    monkeypatch.setattr(script, "SVHN_MIRRORS", (f"{server.address}housenumbers/",))
    return server


def run(root, *arguments):
    return script.main(["--root", str(root), "--quiet", *map(str, arguments)])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def fingerprint(root):
    return load_dataset("mst", "val", source="real", root=root, size=20).fingerprint


def test_local_copies_become_a_data_root(local, tmp_path, capsys):
    root = tmp_path / "root"
    assert run(root, "--from", local) == 0
    said = capsys.readouterr().out
    assert f"Ready under {root}" in said
    assert 'load_dataset("mst", "train", source="real"' in said
    assert fingerprint(root) == fingerprint(local)
    assert names_in(root / "mnist") == STEMS
    assert names_in(root / "svhn") == sorted(SVHN_MD5)


def test_local_copies_may_lie_in_one_folder(local, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*(local / "mnist").iterdir(), *(local / "svhn").iterdir()]:
        (flat / path.name).write_bytes(path.read_bytes())
    assert run(tmp_path / "root", "--from", flat) == 0
    assert fingerprint(tmp_path / "root") == fingerprint(local)


def test_a_second_run_writes_and_asks_for_nothing(published, tmp_path):
    root = tmp_path / "root"

    def times():
        files = [*(root / "mnist").iterdir(), *(root / "svhn").iterdir()]
        return {path: path.stat().st_mtime_ns for path in files}

    assert run(root) == 0
    before = times()
    assert len(before) == len(published.asked) == 6
    assert run(root) == 0
    assert times() == before
    assert len(published.asked) == 6
    assert run(root, "--from", root) == 0


@pytest.mark.parametrize("name", [*SVHN_MD5, "t10k-labels-idx1-ubyte.gz"])
def test_no_file_is_passed_over(local, tmp_path, capsys, name):
    next(local.glob(f"*/{name}")).unlink()
    assert run(tmp_path / "root", "--from", local) == 1
    captured = capsys.readouterr()
    assert name in captured.err
    assert "Ready" not in captured.out


SAYS = {"truncated": "truncated", "other content": "md5", "no X": "no array X"}


@pytest.mark.parametrize("kind", list(SAYS))
def test_a_bad_local_file_is_named_and_not_taken_over(local, tmp_path, capsys, kind):
    path = local / "svhn" / "train_32x32.mat"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "no X":
        path.write_bytes(svhn_bytes(y=np.ones((4, 1), np.uint8)))
    else:
        path.write_bytes((local / "svhn" / "test_32x32.mat").read_bytes())
    assert run(tmp_path / "root", "--from", local) == 1
    message = capsys.readouterr().err
    assert f"{path}: " in message
    assert SAYS[kind] in message
    assert not list((tmp_path / "root").glob("svhn/*"))


def test_a_broken_line_is_taken_up_where_it_broke(published, local, tmp_path):
    published.cuts = [None] * 4 + [100_000]  # MNIST comes whole, SVHN's first file does not
    assert run(tmp_path / "root") == 0
    (path, first), (again, second) = published.asked[4:6]
    assert path == again == "housenumbers/train_32x32.mat"
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 100_000
    assert fingerprint(tmp_path / "root") == fingerprint(local)


def test_what_an_address_answers_is_checked_and_told(published, tmp_path, capsys):
    published.files["housenumbers/test_32x32.mat"] = b"<html>moved</html>"
    assert run(tmp_path / "root") == 1
    message = capsys.readouterr().err
    assert f"{published.address}housenumbers/test_32x32.mat" in message
    assert "no MATLAB file" in message
    assert "--from DIR" in message
    assert names_in(tmp_path / "root" / "svhn") == ["train_32x32.mat"]


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert run(tmp_path / "root", "--from", tmp_path / "nowhere") == 1
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("lock", [".mst.lock", ".mnist.lock"])
def test_two_runs_do_not_meet(local, tmp_path, capsys, lock):
    # The second lock is held by whoever prepares MNIST for another data set.
    root = tmp_path / "root"
    root.mkdir()
    with FileLock(root / lock):
        assert run(root, "--from", local) == 1
    assert "another process" in capsys.readouterr().err
    assert run(root, "--from", local) == 0


def test_the_address_is_the_published_one():
    assert script.SVHN_MIRRORS == ("http://ufldl.stanford.edu/housenumbers/",)


@pytest.mark.skipif(
    not (REAL / "mnist").is_dir() or not (REAL / "svhn").is_dir(),
    reason="the real MNIST and SVHN are not here; set SHALA_DATA",
)
def test_the_real_files_pass_their_checks(tmp_path):
    assert run(tmp_path, "--from", REAL) == 0
    assert fingerprint(tmp_path) == fingerprint(REAL)
