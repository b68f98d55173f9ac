"""Downloads that break off, and the preparation of real PolyMNIST, on small files."""

import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pooch
import pytest
from filelock import FileLock
from small_files import archive_files, write_archive, write_mnist, write_pictures

from data_scripts import download as downloads
from data_scripts import mnist, polymnist_archive
from data_scripts import polymnist as script
from shala_lite.datasets import archive, load_dataset
from shala_lite.datasets.idx import MNIST_MD5
from shala_lite.datasets.polymnist import PICTURES

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("SHALA_DATA") or ROOT.parent / "shared" / "data")
CONTENT = np.random.default_rng(0).bytes(300_000)


def is_content(path):
    if path.read_bytes() != CONTENT:
        raise ValueError(f"{path}: not the content")


def fetch(server, folder, *, names=("file",), check=is_content, **options):
    options = {"attempts": 3, "pause": 0.0, "timeout": 10.0, "progress": False} | options
    urls = [server.address + name for name in names]
    return downloads.download(urls, folder / "target", check, **options)


def part_file(folder):
    """Where a download of ``folder / "target"`` collects its bytes."""
    (folder / ".target.download").mkdir(exist_ok=True)
    return folder / ".target.download" / "target.part"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def begins(wanted):
    """The first byte that a Range header asks for."""
    return int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])


# Downloads


def test_a_line_that_breaks_twice_is_taken_up_where_it_broke(server, tmp_path):
    server.files["file"] = CONTENT
    server.cuts = [100_000, 50_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    (_, first), *later = server.asked
    assert first is None
    begun = [begins(wanted) for _, wanted in later]
    assert len(begun) == 2
    assert 0 <= 100_000 - begun[0] < downloads.BLOCK
    assert 0 <= begun[0] + 50_000 - begun[1] < downloads.BLOCK
    assert names_in(tmp_path) == ["target"]


def test_a_failed_run_leaves_no_target_and_the_next_one_continues(server, tmp_path):
    server.files["file"] = CONTENT
    server.cuts = [70_000]
    with pytest.raises(downloads.DownloadError, match="could not get target"):
        fetch(server, tmp_path, attempts=1)
    assert "target" not in names_in(tmp_path)
    fetch(server, tmp_path)
    assert 0 <= 70_000 - begins(server.asked[-1][1]) < downloads.BLOCK
    assert names_in(tmp_path) == ["target"]


def test_a_killed_process_leaves_no_target_and_the_next_one_continues(server, tmp_path):
    server.files["file"] = CONTENT
    server.cuts = [200_000]
    server.hold = threading.Event()
    code = (
        "import sys; from pathlib import Path; from data_scripts.download import download\n"
        "download([sys.argv[1]], Path(sys.argv[2]), lambda path: None, progress=False)"
    )
    arguments = [sys.executable, "-c", code, server.address + "file", str(tmp_path / "target")]
    process = subprocess.Popen(arguments, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        part = part_file(tmp_path)
        while not part.exists() or part.stat().st_size < 100_000:
            assert process.poll() is None, "the process ended by itself"
            assert time.monotonic() < deadline, "the download never began"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        server.hold.set()
    assert "target" not in names_in(tmp_path)
    server.hold = None
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert begins(server.asked[-1][1]) >= 100_000
    assert names_in(tmp_path) == ["target"]


def test_a_file_that_changed_meanwhile_is_not_glued_together(server, tmp_path):
    server.files["file"] = bytes(reversed(CONTENT))
    server.cuts = [100_000]
    with pytest.raises(downloads.DownloadError):
        fetch(server, tmp_path, attempts=1)
    server.files["file"] = CONTENT
    assert fetch(server, tmp_path, attempts=1).read_bytes() == CONTENT


def test_a_server_without_ranges_still_gives_the_file(server, tmp_path):
    server.files["file"] = CONTENT
    server.ranges = False
    server.cuts = [100_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_without_a_tag_a_glued_file_is_caught_and_then_fetched_anew(server, tmp_path):
    server.tags = False
    server.files["file"] = bytes(reversed(CONTENT))
    server.cuts = [100_000]
    with pytest.raises(downloads.DownloadError):
        fetch(server, tmp_path, attempts=1)
    server.files["file"] = CONTENT
    with pytest.raises(downloads.DownloadError, match="not the content"):
        fetch(server, tmp_path, attempts=1)
    assert fetch(server, tmp_path, attempts=1).read_bytes() == CONTENT


def test_a_part_that_was_complete_is_not_fetched_again(server, tmp_path):
    server.files["file"] = CONTENT
    part_file(tmp_path).write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("file", f"bytes={len(CONTENT)}-")]


def test_a_part_that_is_too_long_is_dropped(server, tmp_path):
    server.files["file"] = CONTENT
    part_file(tmp_path).write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert names_in(tmp_path) == ["target"]


def test_wrong_content_sends_to_the_next_address(server, tmp_path):
    server.files |= {"bad": CONTENT[:-1] + b"?", "good": CONTENT}
    assert fetch(server, tmp_path, names=("bad", "good")).read_bytes() == CONTENT
    assert names_in(tmp_path) == ["target"]


def test_every_address_is_named_when_none_helps(server, tmp_path):
    server.files["bad"] = b"?"
    with pytest.raises(downloads.DownloadError) as caught:
        fetch(server, tmp_path, names=("bad", "gone"))
    message = str(caught.value)
    assert f"{server.address}bad" in message
    assert "not the content" in message
    assert f"{server.address}gone" in message
    assert "404" in message
    assert "--from DIR" in message
    assert [path for path, _ in server.asked].count("gone") == 1, "a 404 is not worth a retry"
    assert names_in(tmp_path) == []


def test_a_published_checksum_is_held_against_the_transferred_file(server, tmp_path):
    server.files["file"] = CONTENT
    with pytest.raises(downloads.DownloadError, match="hash"):
        fetch(server, tmp_path, known_hash="md5:" + "0" * 32)
    assert names_in(tmp_path) == []
    right = "md5:" + hashlib.md5(CONTENT).hexdigest()
    assert fetch(server, tmp_path, known_hash=right).read_bytes() == CONTENT


def test_what_is_there_already_is_kept_or_replaced_by_its_content(server, tmp_path):
    server.files["file"] = CONTENT
    target = tmp_path / "target"
    target.write_bytes(CONTENT)
    fetch(server, tmp_path)
    assert server.asked == []
    target.write_bytes(b"damaged")
    with pytest.raises(downloads.DownloadError):
        fetch(server, tmp_path, names=("gone",))
    assert target.read_bytes() == b"damaged"
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_progress_bar_counts_the_bytes(server, tmp_path, capfd):
    server.files["file"] = CONTENT
    fetch(server, tmp_path, progress=True)
    assert "target: 100%" in capfd.readouterr().err


def test_a_copy_that_fails_its_check_changes_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(CONTENT)
    source.chmod(0o400)
    downloads.copy(source, target, is_content)
    assert target.read_bytes() == CONTENT
    assert os.access(target, os.W_OK)
    target.write_bytes(b"old")
    source.chmod(0o600)
    source.write_bytes(b"wrong")
    with pytest.raises(ValueError, match="not the content"):
        downloads.copy(source, target, is_content)
    assert target.read_bytes() == b"old"
    assert names_in(target.parent) == ["target"]


# PolyMNIST, the recipe


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A folder with small copies of MNIST and of five pictures."""
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    write_mnist(tmp_path / "local" / "mnist", monkeypatch)
    write_pictures(tmp_path / "local" / PICTURES)
    return tmp_path / "local"


def run(root, *arguments):
    return script.main(["--root", str(root), "--quiet", *map(str, arguments)])


def test_local_copies_become_a_data_root(local, tmp_path, capsys):
    assert run(tmp_path / "root", "--from", local) == 0
    assert "m0_picture.png" in capsys.readouterr().out
    made, direct = (
        load_dataset("polymnist", "val", source="real", root=root, size=20)
        for root in (tmp_path / "root", local)
    )
    assert made.fingerprint == direct.fingerprint
    assert names_in(tmp_path / "root" / "mnist") == sorted(f"{stem}.gz" for stem in MNIST_MD5)


def test_a_second_run_writes_nothing(local, tmp_path):
    def times():
        files = (tmp_path / "root").rglob("*.*g*")
        return {path: path.stat().st_mtime_ns for path in files if path.is_file()}

    run(tmp_path / "root", "--from", local)
    before = times()
    assert len(before) == 9
    assert run(tmp_path / "root", "--from", local) == 0
    assert times() == before


def test_a_root_may_be_prepared_from_itself(local):
    assert run(local, "--from", local) == 0


@pytest.mark.parametrize("kind", ["truncated", "other content"])
def test_a_bad_local_file_is_named_and_not_taken_over(local, tmp_path, capsys, kind):
    path = local / "mnist" / "train-labels-idx1-ubyte.gz"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[-1] ^= 1
        path.write_bytes(gzip.compress(content))
    assert run(tmp_path / "root", "--from", local) == 1
    assert "train-labels-idx1-ubyte.gz" in capsys.readouterr().err
    assert path.name not in names_in(tmp_path / "root" / "mnist")


def test_mnist_comes_from_the_second_mirror_where_the_first_fails(
    local, tmp_path, server, monkeypatch
):
    for path in (local / "mnist").iterdir():
        server.files[f"second/{path.name}"] = path.read_bytes()
    server.files["first/train-images-idx3-ubyte.gz"] = b"<html>moved</html>"
    mirrors = tuple(f"{server.address}{name}/" for name in ("first", "second"))
    monkeypatch.setattr(mnist, "MNIST_MIRRORS", mirrors)
    server.cuts = [18, 100_000]  # all of the wrong page, then the second mirror's line breaks
    assert run(tmp_path / "root", "--pictures", local / PICTURES) == 0
    resumed = [begins(wanted) for _, wanted in server.asked if wanted]
    assert len(resumed) == 1
    assert resumed[0] > 0
    data = load_dataset("polymnist", "test", source="real", root=tmp_path / "root", size=20)
    assert len(data) == 20


def test_missing_pictures_are_asked_for(local, tmp_path, capsys):
    assert run(tmp_path / "root", "--from", local / "mnist") == 1
    assert "--pictures" in capsys.readouterr().err
    assert run(tmp_path / "root", "--from", local / "mnist", "--pictures", local / PICTURES) == 0


def test_pictures_of_another_name_are_not_mixed_in(local, tmp_path, capsys):
    run(tmp_path / "root", "--from", local)
    (local / PICTURES / "m4_picture.png").rename(local / PICTURES / "m5_other.png")
    assert run(tmp_path / "root", "--from", local) == 1
    assert "m4_picture.png" in capsys.readouterr().err
    assert len(names_in(tmp_path / "root" / PICTURES)) == 5


def test_a_folder_with_nothing_in_it_says_what_was_looked_for(tmp_path, capsys):
    assert run(tmp_path / "root", "--from", tmp_path) == 1
    message = capsys.readouterr().err
    assert "PolyMNIST.zip" in message
    assert "idx files" in message
    assert run(tmp_path / "root", "--from", tmp_path / "nowhere") == 1
    assert "no such folder" in capsys.readouterr().err


def test_two_runs_do_not_meet(local, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    with FileLock(root / ".polymnist.lock"):
        assert run(root, "--from", local) == 1
    assert "another process" in capsys.readouterr().err
    assert run(root, "--from", local) == 0


@pytest.mark.skipif(
    not (REAL / "mnist").is_dir() or not (REAL / PICTURES).is_dir(),
    reason="the real MNIST and five pictures are not here; set SHALA_DATA",
)
def test_the_real_files_pass_their_checks(tmp_path):
    assert run(tmp_path, "--from", REAL, "--kind", "recipe") == 0
    made = load_dataset("polymnist", "test", source="real", root=tmp_path, size=50)
    direct = load_dataset("polymnist", "test", source="real", root=REAL, size=50)
    assert made.fingerprint == direct.fingerprint


# PolyMNIST, the archive


def zip_bytes(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(f"MMNIST/{name}", content)
        zipped.writestr("MMNIST/clf/weights", b"not ours")
    return buffer.getvalue()


@pytest.fixture
def small_archive(monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(polymnist_archive, "ITEMS", {"train": 48, "test": 20})
    return archive_files()


def fingerprint(root):
    return load_dataset("polymnist", "train", source="real", root=root).fingerprint


def test_zip_file_and_folder_give_the_same_arrays(small_archive, tmp_path, capsys):
    (tmp_path / "PolyMNIST.zip").write_bytes(zip_bytes(small_archive))
    write_archive(tmp_path / "folder")
    assert run(tmp_path / "a", "--from", tmp_path) == 0
    assert run(tmp_path / "b", "--from", tmp_path / "folder") == 0
    assert run(tmp_path / "c", "--from", tmp_path / "PolyMNIST.zip") == 0
    assert "published archive" in capsys.readouterr().out
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") == fingerprint(tmp_path / "c")
    manifest = json.loads((tmp_path / "a" / archive.ARRAYS / archive.MANIFEST).read_text())
    assert manifest["items"] == {"train": 48, "test": 20}
    assert "10.5281/zenodo.4899160" in manifest["source"]
    for name, seen in manifest["sha256"].items():
        content = (tmp_path / "a" / archive.ARRAYS / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == seen


def damaged(content, files):
    """The zip file with one byte of one image turned."""
    at = content.index(files["train/m2/1.4.png"]) + 60
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("fault", ["damaged", "truncated", "incomplete"])
def test_a_bad_archive_leaves_no_arrays(small_archive, tmp_path, capsys, fault):
    content = zip_bytes(small_archive)
    if fault == "damaged":
        content = damaged(content, small_archive)
    elif fault == "truncated":
        content = content[:-1000]
    else:
        content = zip_bytes({k: v for k, v in small_archive.items() if "/0.3." not in k})
    (tmp_path / "PolyMNIST.zip").write_bytes(content)
    assert run(tmp_path / "root", "--from", tmp_path) == 1
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "root" / archive.ARRAYS).exists()


def test_an_interrupted_conversion_is_begun_again(small_archive, tmp_path):
    write_archive(tmp_path / "folder")
    part = tmp_path / "root" / f"{archive.ARRAYS}.part"
    part.mkdir(parents=True)
    (part / "train_m0.npy").write_bytes(b"half")
    assert run(tmp_path / "root", "--from", tmp_path / "folder") == 0
    assert not part.exists()


def test_whole_arrays_are_kept_and_damaged_ones_made_anew(small_archive, tmp_path):
    write_archive(tmp_path / "folder")
    root = tmp_path / "root"
    run(root, "--from", tmp_path / "folder")
    path, before = root / archive.ARRAYS / "test_m1.npy", fingerprint(root)
    written = path.stat().st_mtime_ns
    assert run(root, "--from", tmp_path / "folder") == 0
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:-1])
    assert run(root, "--from", tmp_path / "folder") == 0
    assert fingerprint(root) == before
    assert names_in(root) == [".polymnist.lock", archive.ARRAYS]


def test_the_recipe_is_not_hidden_behind_an_archive(small_archive, local, tmp_path, capsys):
    write_archive(tmp_path / "folder")
    run(tmp_path / "root", "--from", tmp_path / "folder")
    assert run(tmp_path / "root", "--from", local) == 1
    assert "Use another --root" in capsys.readouterr().err


class Zenodo(pooch.downloaders.ZenodoRepository):
    """pooch's client, made to ask the test's server."""


def test_the_archive_comes_from_its_address_with_the_checksum_zenodo_states(
    small_archive, tmp_path, server, monkeypatch
):
    content = zip_bytes(small_archive)
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    entry = {"key": "PolyMNIST.zip", "checksum": checksum, "links": {"self": "unused"}}
    server.files["api/4899160"] = json.dumps({"id": 4899160, "files": [entry]}).encode()
    server.files["PolyMNIST.zip"] = content
    monkeypatch.setattr(Zenodo, "base_api_url", f"{server.address}api")
    monkeypatch.setattr(
        "pooch.core.doi_to_repository",
        lambda doi, **options: Zenodo(doi, "https://zenodo.org/records/4899160", **options),
    )
    monkeypatch.setattr(polymnist_archive, "URL", f"{server.address}PolyMNIST.zip?download=1")
    assert polymnist_archive.published_checksum() == checksum
    server.asked.clear()
    server.cuts = [None, 100_000]  # the record comes whole, the archive's line breaks
    assert run(tmp_path / "root") == 0
    path, wanted = server.asked[-1]
    assert path == "PolyMNIST.zip"
    assert begins(wanted) > 0
    assert fingerprint(tmp_path / "root")
    # The same address with other bytes is refused.
    server.files["PolyMNIST.zip"] = damaged(content, small_archive)
    assert run(tmp_path / "other") == 1
    assert names_in(tmp_path / "other") == [".polymnist.lock"]


def test_where_zenodo_is_silent_the_script_says_so_and_checks_by_itself(
    small_archive, tmp_path, server, monkeypatch, capsys
):
    monkeypatch.setattr(
        "pooch.core.doi_to_repository",
        lambda doi, **options: (_ for _ in ()).throw(ValueError("no such repository")),
    )
    monkeypatch.setattr(polymnist_archive, "URL", f"{server.address}PolyMNIST.zip")
    server.files["PolyMNIST.zip"] = damaged(zip_bytes(small_archive), small_archive)
    assert run(tmp_path / "root") == 1
    message = capsys.readouterr().err
    assert "Zenodo did not state" in message
    assert "damaged" in message
    assert not (tmp_path / "root" / archive.ARRAYS).exists()
    (tmp_path / "root" / "PolyMNIST.zip").unlink()
    server.files["PolyMNIST.zip"] = zip_bytes(small_archive)
    assert run(tmp_path / "root") == 0
