"""The preparation of CUB-200-2011 with captions, on a small folder in the official layout."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from small_cub import CLASSES, EACH, captions_of, colour_of, name_of, write_cub

from data_scripts import cub as script
from data_scripts import cub_layout
from shala_lite.datasets import cub, load_dataset

ALL = CLASSES * EACH


@pytest.fixture
def local(tmp_path):
    """A folder that holds ``CUB_200_2011``."""
    write_cub(tmp_path / "local" / "CUB_200_2011")
    return tmp_path / "local"


def run(root, *arguments):
    return script.main(["--root", str(root), "--quiet", *map(str, arguments)])


def manifest(root):
    return json.loads((root / cub.ARRAYS / cub.MANIFEST).read_text())


def fingerprint(root):
    return load_dataset("cub", "train", source="real", root=root).fingerprint


def test_the_layout_becomes_arrays_in_the_order_of_the_list(local, tmp_path, capsys):
    root = tmp_path / "root"
    assert run(root, "--from", local) == 0
    assert "captions of unstated origin" in capsys.readouterr().out
    seen = manifest(root)
    assert seen["items"] == {"train": ALL // 2, "test": ALL // 2}
    assert seen["left_out"] == {}
    for split, first in (("train", 0), ("test", 1)):
        images = np.load(root / cub.ARRAYS / f"{split}_images.npy")
        assert images.dtype == np.uint8
        assert images.shape == (ALL // 2, 3, 64, 64)
        numbers = range(first, ALL, 2)
        colours = np.array([colour_of(number) for number in numbers])
        assert abs(images - colours[:, :, None, None].astype(float)).max() < 8  # JPEG
        captions = json.loads((root / cub.ARRAYS / f"{split}_captions.json").read_text())
        assert captions == [captions_of(number) for number in numbers]
        labels = np.load(root / cub.ARRAYS / f"{split}_labels.npy")
        assert labels.tolist() == [number // EACH for number in numbers]
    for name, known in seen["sha256"].items():
        content = (root / cub.ARRAYS / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == known


def test_the_folder_itself_and_captions_elsewhere_will_do(local, tmp_path):
    (local / "CUB_200_2011" / "text_c10").rename(tmp_path / "text")
    layout = local / "CUB_200_2011"
    assert run(tmp_path / "a", "--from", layout, "--text", tmp_path / "text") == 0
    (tmp_path / "text").rename(local / "text_c10")
    assert run(tmp_path / "b", "--from", layout) == 0
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


@pytest.mark.parametrize(
    ("option", "note"), [("original", "the original captions"), ("template", "template captions")]
)
def test_which_captions_they_are_is_written_down(local, tmp_path, option, note):
    assert run(tmp_path / "root", "--from", local, "--captions", option) == 0
    assert manifest(tmp_path / "root")["captions"] == option
    assert note in load_dataset("cub", "val", source="real", root=tmp_path / "root").note


def test_whole_arrays_are_kept_unless_other_captions_are_claimed(local, tmp_path):
    root = tmp_path / "root"
    path = root / cub.ARRAYS / "test_images.npy"
    run(root, "--from", local, "--captions", "template")
    written = path.stat().st_mtime_ns
    assert run(root, "--from", local) == 0
    assert path.stat().st_mtime_ns == written
    assert manifest(root)["captions"] == "template"
    assert run(root, "--from", local, "--captions", "original") == 0
    assert manifest(root)["captions"] == "original"
    before = fingerprint(root)
    path.write_bytes(path.read_bytes()[:-1])
    assert run(root, "--from", local) == 0
    assert fingerprint(root) == before
    assert sorted(p.name for p in root.iterdir()) == [".cub.lock", cub.ARRAYS]


def damaged(layout):
    """A picture that does not decode; returns its path."""
    picture = layout / "images" / f"{name_of(4)}.jpg"
    picture.write_bytes(b"no picture")
    return picture


def test_a_repaired_picture_is_read_and_no_longer_left_out(local, tmp_path, capsys):
    root, picture = tmp_path / "root", damaged(local / "CUB_200_2011")
    assert run(root, "--from", local) == 0
    assert "left out: 1 x" in capsys.readouterr().err
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(picture)
    assert run(root, "--from", local) == 0
    assert "left out" not in capsys.readouterr().err
    assert manifest(root)["left_out"] == {}
    images = np.load(root / cub.ARRAYS / "train_images.npy")
    assert len(images) == ALL // 2
    assert abs(images[2].astype(int) - 90).max() < 4


def change(layout, what):
    """Change one thing that the arrays are made of."""
    text = layout / "text_c10" / f"{name_of(4)}.txt"
    if what == "captions":
        text.write_text("one other bird\n" * 3)
    elif what == "list":
        lines = (layout / "images.txt").read_text().splitlines(keepends=True)
        (layout / "images.txt").write_text("".join(lines[:-1]))
    elif what == "picture not listed":
        shutil.copy(layout / "images" / f"{name_of(4)}.jpg", layout / "images" / "more.jpg")
    else:
        text.with_name("more.txt").write_text("a bird")


@pytest.mark.parametrize("what", ["captions", "list", "picture not listed", "text of no picture"])
def test_arrays_are_made_anew_where_the_source_has_changed(local, tmp_path, what):
    assert run(tmp_path / "root", "--from", local) == 0
    change(local / "CUB_200_2011", what)
    for name in ("root", "whole"):
        assert run(tmp_path / name, "--from", local) == 0
    assert manifest(tmp_path / "root") == manifest(tmp_path / "whole")


def test_another_source_is_read_and_the_same_one_elsewhere_is_not(local, tmp_path):
    root, written = tmp_path / "root", tmp_path / "root" / cub.ARRAYS / "test_images.npy"
    assert run(root, "--from", local) == 0
    first, at = fingerprint(root), written.stat().st_mtime_ns
    local.rename(tmp_path / "moved")
    assert run(root, "--from", tmp_path / "moved") == 0
    assert written.stat().st_mtime_ns == at
    write_cub(tmp_path / "other", size=(30, 60))
    picture = tmp_path / "other" / "images" / f"{name_of(4)}.jpg"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(picture)
    assert run(root, "--from", tmp_path / "other") == 0
    assert fingerprint(root) != first
    assert manifest(root)["source"] == str(tmp_path / "other")


def test_a_source_that_is_not_there_is_an_error_though_arrays_are(local, tmp_path, capsys):
    assert run(tmp_path / "root", "--from", local) == 0
    for option, named in (("--from", "--from"), ("--text", "--text")):
        capsys.readouterr()
        assert run(tmp_path / "root", "--from", local, option, tmp_path / "nowhere") == 1
        told = capsys.readouterr()
        assert f"{named} {tmp_path / 'nowhere'}: there is no such folder" in told.err
        assert "Ready" not in told.out


# What cannot be used


def png_with_a_bad_header(pixels):
    """A PNG whose first chunk says that it is empty, which Pillow reports as a ValueError."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    whole = written.getvalue()
    return whole[:8] + bytes(4) + whole[12:]


def break_one(layout, fault):
    """Do one kind of damage to the layout; returns the reason and the name to be reported."""
    picture = layout / "images" / f"{name_of(4)}.jpg"
    text = layout / "text_c10" / f"{name_of(4)}.txt"
    if fault == "no picture":
        picture.unlink()
        return cub_layout.NO_FILE, f"{name_of(4)}.jpg"
    if fault == "no text":
        text.unlink()
        return cub_layout.NO_CAPTIONS, f"{name_of(4)}.jpg"
    if fault == "empty text":
        text.write_text(" \n\n")
        return cub_layout.NO_CAPTIONS, f"{name_of(4)}.jpg"
    if fault == "text of no picture":
        text.with_name("Kind_9.txt").write_text("a bird")
        return cub_layout.NO_PICTURE, "001.Kind_1/Kind_9.txt"
    if fault in ELSEWHERE:
        stray = layout / "text_c10" / ELSEWHERE[fault]
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("a bird")
        return cub_layout.NO_PICTURE, ELSEWHERE[fault]
    if fault == "number of no picture":
        with (layout / "train_test_split.txt").open("a") as lines:
            lines.write("999 1\n")
        return cub_layout.NO_NUMBER, "train_test_split.txt, 999"
    if fault == "picture not listed":
        shutil.copy(picture, picture.with_name("Kind_9.JPG"))
        return cub_layout.NOT_LISTED, "001.Kind_1/Kind_9.JPG"
    if fault == "line without a word":
        text.write_text(f"{captions_of(4)[0]}\n\n !!! \n{captions_of(4)[1]}\n")
        return cub_layout.NO_WORD, f"{name_of(4)}.txt, line 3"
    if fault == "no UTF-8":
        text.write_bytes(b"a bird\na na\xefve bird\nna\xc3\xafve, as it should be\n")
        return cub_layout.NOT_UTF8, f"{name_of(4)}.txt, line 2"
    noise = np.random.default_rng(0).integers(256, size=(60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    damaged = {"cut": picture.read_bytes()[:900], "bad header": png_with_a_bad_header(noise)}
    picture.write_bytes(damaged.get(fault, b"no picture"))
    return cub_layout.UNREADABLE, f"{name_of(4)}.jpg"


ELSEWHERE = {
    "text in no folder": "stray.txt",
    "text too deep": "001.Kind_1/more/Kind_1_0004.txt",
    "text of another suffix": f"{name_of(4)}.TXT",
}
LOSING = ["no picture", "no text", "empty text", "cut", "bad header", "other content"]
FAULTS = [
    *LOSING,
    *ELSEWHERE,
    "number of no picture",
    "text of no picture",
    "picture not listed",
    "line without a word",
    "no UTF-8",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_counted_and_named(local, tmp_path, capsys, fault):
    reason, name = break_one(local / "CUB_200_2011", fault)
    root = tmp_path / "root"
    for _ in range(2):  # a second run, which keeps the arrays, says so again
        assert run(root, "--from", local) == 0
        assert f"left out: 1 x {reason} ({name})" in capsys.readouterr().err
    seen = manifest(root)
    assert seen["left_out"] == {reason: [name]}
    lost = fault in LOSING
    assert seen["items"]["train"] == ALL // 2 - lost
    images = np.load(root / cub.ARRAYS / "train_images.npy")
    captions = json.loads((root / cub.ARRAYS / "train_captions.json").read_text())
    assert len(images) == len(captions) == ALL // 2 - lost
    if lost:  # what follows keeps its own captions
        assert captions[2] == captions_of(6)
        assert abs(images[2].mean((1, 2)) - colour_of(6)).max() < 4
    elif fault == "line without a word":
        assert captions[2] == captions_of(4)[:2]
    elif fault == "no UTF-8":
        assert captions[2] == ["a bird", "a na ve bird", "naïve, as it should be"]
    else:
        assert captions[2] == captions_of(4)


def test_every_line_that_is_left_out_is_counted(local, tmp_path, capsys):
    text = local / "CUB_200_2011" / "text_c10"
    (text / f"{name_of(2)}.txt").write_bytes(b"...\n!!!\n\xff\xfe\n")
    (text / f"{name_of(4)}.txt").write_bytes(b"a bird\n\n-- \xff\n")
    assert run(tmp_path / "root", "--from", local) == 0
    left_out = manifest(tmp_path / "root")["left_out"]
    two, four = f"{name_of(2)}.txt", f"{name_of(4)}.txt"
    assert left_out == {
        cub_layout.NO_WORD: [f"{two}, line 1", f"{two}, line 2", f"{four}, line 3"],
        cub_layout.NOT_UTF8: [f"{two}, line 3", f"{four}, line 3"],
        cub_layout.NO_CAPTIONS: [f"{name_of(2)}.jpg"],
    }
    assert f"left out: 3 x {cub_layout.NO_WORD} ({two}, line 1)" in capsys.readouterr().err


def test_nothing_usable_is_an_error(local, tmp_path, capsys):
    for path in (local / "CUB_200_2011" / "images").glob("*/*.jpg"):
        path.write_bytes(b"")
    assert run(tmp_path / "root", "--from", local) == 1
    message = capsys.readouterr().err
    assert "no usable photograph for train" in message
    assert f"{ALL // 2} x {cub_layout.UNREADABLE}" in message
    assert not (tmp_path / "root" / cub.ARRAYS).exists()


def test_no_frequent_word_is_an_error(local, tmp_path, capsys):
    for at, path in enumerate((local / "CUB_200_2011" / "text_c10").glob("*/*.txt")):
        path.write_text(f"word{at}")
    assert run(tmp_path / "root", "--from", local) == 1
    assert "no vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("images.txt", "1 a/b.jpg\n1 a/c.jpg\n", "images.txt, line 2"),
        ("images.txt", "1 a/b.jpg more\n", "images.txt, line 1"),
        ("images.txt", "1 a/b.jpg\n2 a/c.jpg\n3 a/b.jpg\n", "a/b.jpg has the numbers 1 and 3"),
        ("images.txt", b"1 a/b.jpg\n2 a/caf\xe9.jpg\n", "images.txt, line 2: expected UTF-8"),
        ("images.txt", "99 a/b.jpg\n", "99 a/b.jpg: expected a class"),
        ("images.txt", "", "no usable photograph for train"),
        ("image_class_labels.txt", "1 x\n", "expected a class from 1 on"),
        ("train_test_split.txt", "1 2\n", "a part 0 or 1"),
        ("train_test_split.txt", None, "train_test_split.txt: missing"),
    ],
)
def test_a_bad_list_is_named(local, tmp_path, capsys, name, content, complaint):
    path = local / "CUB_200_2011" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(tmp_path / "root", "--from", local) == 1
    assert complaint in capsys.readouterr().err


def test_a_folder_with_nothing_in_it_says_what_was_looked_for(local, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "root", "--from", tmp_path / "empty") == 1
    assert "images.txt" in capsys.readouterr().err
    (local / "CUB_200_2011" / "text_c10").rename(tmp_path / "elsewhere")
    assert run(tmp_path / "root", "--from", local) == 1
    assert "--text DIR" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_where_it_stopped(local, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "BLOCK", 4)
    read = []

    def reading(path):
        read.append(path)
        if len(read) == 11:
            raise KeyboardInterrupt
        return cub_layout.read_picture(path)

    monkeypatch.setattr(script, "read_picture", reading)
    assert run(tmp_path / "root", "--from", local) == 1
    assert "goes on" in capsys.readouterr().err
    assert not (tmp_path / "root" / cub.ARRAYS).exists()
    assert run(tmp_path / "root", "--from", local) == 0
    # Two blocks of four were done; the third is begun again.
    assert len(read) == 11 + ALL - 8
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == [".cub.lock", cub.ARRAYS]
    assert len(list((tmp_path / "root" / cub.ARRAYS).iterdir())) == 7
    monkeypatch.setattr(script, "read_picture", cub_layout.read_picture)
    assert run(tmp_path / "whole", "--from", local) == 0
    assert fingerprint(tmp_path / "root") == fingerprint(tmp_path / "whole")


def test_a_photograph_that_has_changed_is_read_again(local, tmp_path):
    root = tmp_path / "root"
    found = cub_layout.read_layout(local / "CUB_200_2011")
    part = root / f"{cub.ARRAYS}.part"
    part.mkdir(parents=True)
    script._block(part, found.parts["train"])
    path = found.parts["train"][0].path
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(path)
    assert run(root, "--from", local) == 0
    images = np.load(root / cub.ARRAYS / "train_images.npy")
    assert abs(images[0].astype(int) - 200).max() < 4


def test_two_runs_do_not_meet(local, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    with FileLock(root / ".cub.lock"):
        assert run(root, "--from", local) == 1
    assert "another process" in capsys.readouterr().err
    assert run(root, "--from", local) == 0
