"""The published layout of PNG files, and the arrays made of it."""

import json

import numpy as np
import pytest
import torch
from small_files import archive_files, png_bytes, write_archive

from shala_lite.datasets import archive, load_dataset

NOISE = np.random.default_rng(9).integers(256, size=(3, 28, 28), dtype=np.uint8)
SPLITS = {"train": 44, "val": 4, "test": 20}  # of 48 and 20 items


@pytest.fixture
def root(tmp_path):
    write_archive(tmp_path / "PolyMNIST")
    return tmp_path


def real(root, split="train", **arguments):
    return load_dataset("polymnist", split, source="real", root=root, **arguments)


def test_the_five_images_of_an_item_stay_together(root):
    files = archive_files()
    owners = {content: name for name, content in files.items()}
    data = real(root, "test")
    for item, label in enumerate(data.labels.tolist()):
        images = [data.observations[f"m{k}"][item].numpy() for k in range(5)]
        names = [owners[png_bytes(image)] for image in images]
        assert [name.split("/")[1] for name in names] == ["m0", "m1", "m2", "m3", "m4"]
        assert len({name.split("/")[2] for name in names}) == 1
        assert all(name.endswith(f".{label}.png") for name in names)


def test_the_splits_are_disjoint_and_complete(root):
    items = {
        split: {x.numpy().tobytes() for x in real(root, split).observations["m0"]}
        for split in SPLITS
    }
    assert {split: len(seen) for split, seen in items.items()} == SPLITS
    assert len(set.union(*items.values())) == 68


def test_the_usual_numbers_of_the_whole_archive():
    train = archive.positions(60_000, "train", None, 0)
    val = archive.positions(60_000, "val", None, 0)
    assert (len(train), len(val)) == (55_000, 5_000)
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(60_000))
    assert np.array_equal(val, archive.positions(60_000, "val", None, 1))


def test_a_smaller_size_is_a_seeded_choice_and_a_larger_one_an_error(root):
    whole = real(root)
    few, same, other = (real(root, size=20, seed=seed) for seed in (0, 0, 1))
    assert few.fingerprint == same.fingerprint != other.fingerprint
    rows = {x.numpy().tobytes() for x in whole.observations["m3"]}
    assert {x.numpy().tobytes() for x in few.observations["m3"]} < rows
    with pytest.raises(ValueError, match=r"has 44 items for 'train'.*got 45"):
        real(root, size=45)


def test_the_folder_may_have_either_name_and_other_files_in_it(root):
    before = real(root).fingerprint
    (root / "PolyMNIST" / "train" / "m0" / "notes.txt").write_text("x")
    (root / "PolyMNIST" / "clf").mkdir()
    (root / "PolyMNIST").rename(root / "MMNIST")
    assert real(root).fingerprint == before


def test_names_that_do_not_match_up_are_refused():
    names = list(archive_files())
    assert set(archive.index_names(names, "here")) == {"train", "test"}
    lacking = [name for name in names if name != "train/m3/2.7.png"]
    with pytest.raises(ValueError, match=r"here: train/m0 and train/m3.*2\.7\.png"):
        archive.index_names(lacking, "here")
    with pytest.raises(ValueError, match="here: nothing of the form test/m0"):
        archive.index_names([name for name in names if name.startswith("train")], "here")


def test_the_order_of_names_does_not_matter():
    names = list(archive_files())
    turned = archive.index_names(reversed(names), "here")
    assert turned == archive.index_names(names, "here")
    assert [list(view) for view in turned["train"]] == [sorted(view) for view in turned["train"]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"text", "1.3.png: cannot be read"),
        (png_bytes(NOISE)[:900], "1.3.png: cannot be read"),
        (png_bytes(np.zeros((3, 28, 27), np.uint8)), r"1.3.png: expected 28x28.*\(28, 27\)"),
    ],
)
def test_a_damaged_image_is_named(root, content, complaint):
    (root / "PolyMNIST" / "test" / "m2" / "1.3.png").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        real(root, "test")


@pytest.fixture
def arrays(root, tmp_path, monkeypatch):
    """A second root with the arrays that the script makes of the first."""
    from data_scripts import polymnist_archive

    monkeypatch.setattr(polymnist_archive, "ITEMS", {"train": 48, "test": 20})
    polymnist_archive.prepare_archive(tmp_path / "second", root, progress=False)
    return tmp_path / "second"


def test_arrays_and_png_files_give_the_same_bytes(root, arrays):
    for split in SPLITS:
        for size in (None, 3):
            a, b = (real(place, split, size=size, seed=2) for place in (root, arrays))
            assert a.fingerprint == b.fingerprint
            assert torch.equal(a.labels, b.labels)


def test_a_damaged_or_missing_array_is_an_error_that_names_it(arrays):
    path = arrays / archive.ARRAYS / "train_m2.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train_m2\.npy: damaged.*prepare the data again"):
        real(arrays)
    path.unlink()
    with pytest.raises(ValueError, match=r"train_m2\.npy: missing"):
        real(arrays)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"sha256": 3})])
def test_a_damaged_manifest_is_named(arrays, text):
    (arrays / archive.ARRAYS / archive.MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r"polymnist\.json: not a manifest"):
        real(arrays)
