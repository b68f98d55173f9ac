"""Composition, and the two sources of PolyMNIST."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_files import png_bytes, small_mnist, write_archive, write_mnist, write_pictures

from shala_lite.datasets import load_dataset, polymnist
from shala_lite.datasets.digits import embedded_scans
from shala_lite.datasets.textures import draw_textures

NAMES = [f"m{k}" for k in range(5)]
REAL = Path(os.environ.get("SHALA_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_real = pytest.mark.skipif(
    not (REAL / "mnist").is_dir() or not (REAL / polymnist.PICTURES).is_dir(),
    reason="the real MNIST and five pictures are not here; set SHALA_DATA",
)
NOISE = np.random.default_rng(9).integers(256, size=(3, 28, 28), dtype=np.uint8)


def position_pictures(count=5, height=90, width=120):
    """Pictures whose pixels say where they are: red is the row, green the column."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(height)[:, None]
    picture[..., 1] = np.arange(width)
    return [picture] * count


def distinct_scans(count):
    """Scans (K, 28, 28) whose masks are all different, and labels."""
    rng = np.random.default_rng(5)
    scans = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
    return scans, np.arange(count) % 10


def read_back(column):
    """Row and column of each crop, and its mask, from images of position_pictures."""
    mask = column[:, 2] == 255  # blue is 0 in the picture, so it tells the mask
    corner = np.where(mask[:, 0, 0, None], 255 - column[:, :2, 0, 0], column[:, :2, 0, 0])
    return corner, mask


def compose(scans, labels, size, seed=0):
    rng = np.random.default_rng(seed)
    return polymnist.compose(scans, labels, position_pictures(), size, rng)


# The recipe


def test_every_image_is_the_recipe_of_its_crop_and_its_scan():
    scans, labels = distinct_scans(40)
    columns, drawn = compose(scans, labels, 300)
    masks = {(scan > 128).tobytes(): label for scan, label in zip(scans, labels)}
    picture = position_pictures()[0].astype(float) / 255
    for column in columns:
        assert column.dtype == np.uint8
        assert column.shape == (300, 3, 28, 28)
        corners, seen = read_back(column)
        for image, (row, col), mask, label in zip(column, corners, seen, drawn):
            assert masks[mask.tobytes()] == label
            crop = picture[row : row + 28, col : col + 28].transpose(2, 0, 1)
            expected = crop * (1 - mask) + (1 - crop) * mask
            assert np.array_equal(image, (expected * 255).round().astype(np.uint8))


def test_the_threshold_lies_above_128():
    scans = np.full((10, 28, 28), 128, np.uint8)
    scans[:, 5, 5] = 129
    columns, _ = compose(scans, np.arange(10), 10)
    for column in columns:
        _, mask = read_back(column)
        assert mask[:, 5, 5].all()
        assert mask.sum() == 10


def test_scans_are_dealt_evenly_within_their_class():
    scans, labels = distinct_scans(40)  # four of each digit
    columns, drawn = compose(scans, labels, 1000)
    assert np.bincount(drawn).tolist() == [100] * 10
    names = {(scan > 128).tobytes(): k for k, scan in enumerate(scans)}
    for column in columns:
        used = [names[mask.tobytes()] for mask in read_back(column)[1]]
        assert np.bincount(used, minlength=40).tolist() == [25] * 40


def test_as_many_sets_as_scans_use_each_scan_once_a_modality():
    # The published recipe: a class-wise permutation for every modality.
    scans, labels = distinct_scans(40)
    columns, _ = compose(scans, labels, 40)
    for column in columns:
        assert len(np.unique(read_back(column)[1], axis=0)) == 40


def test_images_of_a_set_share_the_label_and_nothing_else():
    scans, labels = distinct_scans(200)  # 20 of each digit
    n = 4000
    columns, _ = compose(scans, labels, n)
    names = {(scan > 128).tobytes(): k for k, scan in enumerate(scans)}
    used = np.array([[names[m.tobytes()] for m in read_back(c)[1]] for c in columns])
    corners = np.stack([read_back(c)[0] for c in columns])  # (5, n, 2)
    flat = corners.transpose(0, 2, 1).reshape(10, n).astype(float)
    limit = 4.5 / np.sqrt(n)
    correlation = np.corrcoef(flat) - np.eye(10)
    assert abs(correlation).max() < limit
    # Neither does a crop's place follow the digit or the scan.
    assert abs(np.corrcoef(np.vstack([flat, used // 10, used % 10]))[:10, 10:]).max() < limit
    for a in range(5):
        for b in range(a):
            same = (used[a] == used[b]).mean()  # independent: 1 in 20
            assert abs(same - 1 / 20) < 4.5 * np.sqrt(0.05 * 0.95 / n)


def test_crops_reach_every_corner_of_the_picture_evenly():
    scans, labels = distinct_scans(40)
    columns, _ = compose(scans, labels, 4000)
    rows, cols = np.concatenate([read_back(c)[0] for c in columns]).T
    for seen, places in ((rows, 90 - 27), (cols, 120 - 27)):
        counts = np.bincount(seen, minlength=places)
        assert len(counts) == places
        expected = len(seen) / places
        assert abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_picture_of_one_crop_is_enough():
    scans, labels = distinct_scans(10)
    pictures = [np.full((28, 28, 3), 7, np.uint8)]
    columns, _ = polymnist.compose(scans, labels, pictures, 10, np.random.default_rng(0))
    assert set(np.unique(columns[0])) == {7, 248}


def test_composing_across_chunks_changes_nothing(monkeypatch):
    scans, labels = distinct_scans(40)
    whole, _ = compose(scans, labels, 300)
    monkeypatch.setattr(polymnist, "_CHUNK", 7)
    in_parts, _ = compose(scans, labels, 300)
    assert all(np.array_equal(a, b) for a, b in zip(whole, in_parts))


# Embedded


def shows_crop(part, texture):
    """Whether ``part`` (3, h, w) lies somewhere in ``texture`` (H, W, 3)."""
    h, w = part.shape[1:]
    places = np.indices((texture.shape[0] - h + 1, texture.shape[1] - w + 1)).reshape(2, -1)
    for y in range(h):
        for x in range(w):
            seen = texture[places[0] + y, places[1] + x]
            places = places[:, (seen == part[:, y, x]).all(-1)]
    return places.shape[1] > 0


def test_embedded_sets_are_the_same_on_every_machine():
    # A snapshot on purpose, as for the textures.
    data = load_dataset("polymnist", "val", size=500, seed=3)
    assert data.fingerprint == "da6a558c993a4ba967e4944bd808bc520ba5175a6bff554eda3eb943a6eb4c32"


def test_same_arguments_same_bytes_and_other_arguments_other_bytes():
    arguments = [("train", 50, 0), ("train", 50, 1), ("val", 50, 0), ("test", 50, 0)]
    first, second = (
        [load_dataset("polymnist", s, size=n, seed=k).fingerprint for s, n, k in arguments]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == len(arguments)


@pytest.mark.parametrize(("split", "size"), [("train", 10_000), ("val", 2_000), ("test", 2_000)])
def test_embedded_sizes(split, size):
    data = load_dataset("polymnist", split)
    assert len(data) == size
    assert (data.name, data.split, data.source) == ("polymnist", split, "embedded")
    assert [m.name for m in data.modalities] == NAMES
    assert all(m.shape == (3, 28, 28) for m in data.modalities)
    assert data.present.all()
    assert torch.bincount(data.labels).min() > 0.08 * size
    assert "scikit-learn" in data.note


def test_embedded_images_show_scans_of_their_own_split_on_their_own_texture():
    scans, labels = embedded_scans("test")
    masks = {(scan > 128).tobytes(): label for scan, label in zip(scans, labels)}
    data = load_dataset("polymnist", "test", size=12)
    for k, name in enumerate(NAMES):
        # The first two rows of an enlarged scan are blank, so they show the bare texture.
        dark = k in (0, 2, 4)
        for image, label in zip(data.observations[name].numpy(), data.labels.tolist()):
            assert shows_crop(image[:, :2], draw_textures()[k])
            # Inverted pixels lie on the other side of the middle.
            mask = (image.astype(int).sum(0) > 382) if dark else (image.astype(int).sum(0) < 382)
            assert masks[mask.tobytes()] == label


# Real


@pytest.fixture
def raw_root(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist", monkeypatch)
    write_pictures(tmp_path / polymnist.PICTURES)
    return tmp_path


def real(root, split="train", **arguments):
    return load_dataset("polymnist", split, source="real", root=root, **arguments)


def test_raw_files_are_composed_with_pictures_in_the_order_of_their_names(raw_root):
    data = real(raw_root, size=60)
    assert data.source == "real"
    assert "m0_picture.png, m1_picture.png" in data.note
    for k, name in enumerate(NAMES):
        picture = polymnist.read_picture(raw_root / polymnist.PICTURES / f"m{k}_picture.png")
        windows = np.lib.stride_tricks.sliding_window_view(picture, (28, 28), axis=(0, 1))
        windows = windows.reshape(-1, 3, 28, 28)
        for image in data.observations[name].numpy()[:10]:
            # Equal to the crop or to its inverse, everywhere, for one place of its own picture.
            fits = ((windows == image) | (windows == 255 - image)).all((1, 2, 3))
            assert fits.sum() == 1


def test_real_splits_share_no_scan(raw_root):
    # On black pictures the masks can be read off.
    for path in (raw_root / polymnist.PICTURES).iterdir():
        path.write_bytes(png_bytes(np.zeros((3, 30, 30), np.uint8)))
    seen = {}
    for split in ("train", "val", "test"):
        data = real(raw_root, split, size=600)
        images = torch.cat([data.observations[name][:, 0] for name in NAMES]).numpy()
        seen[split] = {(image == 255).tobytes() for image in images}
        assert data.distinct == len(seen[split])
        leading = data.observations["m0"][: data.distinct, 0].numpy() == 255
        assert len(np.unique(leading, axis=0)) == data.distinct  # they repeat none
    scans, _ = small_mnist("train")
    assert seen["train"] == {(scan > 128).tobytes() for scan in scans[:220]}
    assert seen["val"] == {(scan > 128).tobytes() for scan in scans[220:]}
    assert seen["test"] == {(scan > 128).tobytes() for scan in small_mnist("t10k")[0]}


def test_the_usual_real_sizes(raw_root):
    for split, size in (("val", 5_000), ("test", 10_000)):
        assert len(real(raw_root, split)) == size
    assert polymnist.SIZES["real"]["train"] == 60_000


def test_a_missing_root_says_how_to_prepare_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        real(tmp_path / "nowhere")
    message = str(caught.value)
    assert "train-images-idx3-ubyte.gz" in message
    assert f"python -m data_scripts.polymnist --root {tmp_path / 'nowhere'}" in message
    assert "$SHALA_DATA" in message


def test_a_missing_picture_says_how_many_are_there(raw_root):
    (raw_root / polymnist.PICTURES / "m3_picture.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"{polymnist.PICTURES} must hold 5.*holds 4"):
        real(raw_root)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no picture", "m2_picture.png: cannot be read"),
        (png_bytes(np.zeros((3, 27, 99), np.uint8)), "m2_picture.png: expected at least 28x28"),
        (png_bytes(NOISE)[:900], "m2_picture.png: cannot be read"),
    ],
)
def test_a_picture_that_will_not_do_is_named(raw_root, content, complaint):
    (raw_root / polymnist.PICTURES / "m2_picture.png").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        real(raw_root)


def test_files_beside_the_pictures_do_not_count(raw_root):
    (raw_root / polymnist.PICTURES / "README.txt").write_text("where they are from")
    assert len(real(raw_root, size=5)) == 5


def test_the_published_archive_comes_before_the_raw_files(raw_root):
    write_archive(raw_root / "PolyMNIST")
    assert "published archive" in real(raw_root, size=5).note


@needs_real
def test_real_mnist_composes_into_sets_of_one_digit():
    data = load_dataset("polymnist", "train", source="real", root=REAL, size=2000)
    assert len(data) == 2000
    # MNIST's own frequencies: ones are the most common digit, fives the rarest.
    counts = torch.bincount(data.labels, minlength=10) / 2000
    assert abs(counts[1] - 0.1124) < 0.03
    assert abs(counts[5] - 0.0904) < 0.03
    again = load_dataset("polymnist", "train", source="real", root=REAL, size=2000)
    assert data.fingerprint == again.fingerprint


@pytest.mark.parametrize(("split", "size"), [("test", 700), ("val", 100)])
def test_the_leading_embedded_items_repeat_no_scan(split, size):
    data = load_dataset("polymnist", split, size=size)
    scans, labels = embedded_scans(split)
    assert data.distinct == min(size, len(scans))
    assert data.subset(slice(50)).distinct == 50
    for column in compose(scans, labels, size)[0]:  # as the data are, on pictures that tell masks
        masks = read_back(column)[1].reshape(size, -1)
        assert len(np.unique(masks[: data.distinct], axis=0)) == data.distinct
        assert len(np.unique(masks, axis=0)) == data.distinct
