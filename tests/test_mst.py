"""Digits, street numbers and words: what they share, and what they do not."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from small_files import small_mnist, small_svhn, write_mnist, write_svhn

from shala_lite.datasets import load_dataset, mst, street
from shala_lite.datasets.digits import embedded_scans

REAL = Path(os.environ.get("SHALA_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_real = pytest.mark.skipif(
    not (REAL / "mnist").is_dir() or not (REAL / "svhn").is_dir(),
    reason="the real MNIST and SVHN are not here; set SHALA_DATA",
)
# Of a fixed seed, so that no run fails by chance; some forty tests are done, one in 25 would not.
RARE = 1e-3


@pytest.fixture(scope="module")
def train():
    return load_dataset("mst", "train")


def texts_of(data):
    return mst.LETTERS.decode(data.observations["word"])


def positions(pictures, source):
    """Which picture of a source each one is."""
    names = {picture.tobytes(): k for k, picture in enumerate(source)}
    assert len(names) == len(source)
    return np.array([names[picture.tobytes()] for picture in pictures])


def scans_of(data):
    return positions(data.observations["digit"].numpy(), embedded_scans(data.split)[0])


# Words


def test_a_word_lies_among_eight_letters_and_is_read_back():
    labels = np.arange(400) % 10
    texts = mst.words(labels, np.random.default_rng(0))
    assert all(len(text) == 8 for text in texts)
    assert [text.strip(" ") for text in texts] == [mst.WORDS[label] for label in labels]
    assert mst.read_word(texts).tolist() == labels.tolist()
    # Token ids lose the blanks at the end, and nothing else.
    decoded = mst.LETTERS.decode(mst.LETTERS.encode(texts, 8))
    assert decoded == [text.rstrip(" ") for text in texts]
    assert mst.read_word(decoded).tolist() == labels.tolist()
    assert torch.equal(mst.offsets(decoded), mst.offsets(texts))


@pytest.mark.parametrize("label", range(10))
def test_every_offset_is_equally_likely(label):
    places = 8 - len(mst.WORDS[label]) + 1
    texts = mst.words(np.full(6000, label), np.random.default_rng(label))
    counts = np.bincount(mst.offsets(texts), minlength=places)
    assert len(counts) == places
    assert chisquare(counts).pvalue > RARE


@pytest.mark.parametrize(
    "text", ["", "        ", "z ero", "Zero", "zeros", "eno", "oneone", "tw", "two  one"]
)
def test_what_is_no_digit_is_read_as_none(text):
    assert mst.read_word([text, " two "]).tolist() == [-1, 2]


def test_offsets_count_leading_blanks():
    assert mst.offsets(["one", "   nine ", "", "    "]).tolist() == [0, 3, -1, -1]
    assert mst.read_word([]).shape == mst.offsets([]).shape == (0,)


def test_the_vocabulary_holds_the_letters_that_occur_and_a_blank():
    assert mst.LETTERS.tokens == (" ", *"efghinorstuvwxz")


# Embedded


@pytest.mark.parametrize(("split", "size"), [("val", 2_000), ("test", 2_000)])
def test_embedded_sizes(split, size):
    data = load_dataset("mst", split)
    assert len(data) == size == mst.SIZES["embedded"][split]
    assert (data.name, data.split, data.source) == ("mst", split, "embedded")
    assert "scikit-learn" in data.note


def test_embedded_items_are_complete(train):
    assert len(train) == 10_000
    kinds = [(m.name, m.shape, m.kind) for m in train.modalities]
    assert kinds == [
        ("digit", (1, 28, 28), "image"),
        ("street", (3, 32, 32), "image"),
        ("word", (8,), "text"),
    ]
    assert train.present.all()
    assert torch.bincount(train.labels).min() > 800


def test_every_modality_shows_the_label(train):
    labels = train.labels.numpy()
    assert np.array_equal(embedded_scans("train")[1][scans_of(train)], labels)
    assert torch.equal(mst.read_word(texts_of(train)), train.labels)
    assert torch.equal(mst.offsets(texts_of(train)), train.attributes["offset"])


def test_street_numbers_show_the_label(monkeypatch):
    asked = []
    real = street.draw_streets
    monkeypatch.setattr(
        mst, "draw_streets", lambda *a: asked.append((a[0], real(*a))) or asked[-1][1]
    )
    data = load_dataset("mst", "val", size=50)
    labels, (pictures, styles) = asked[0]
    assert labels.tolist() == data.labels.tolist()
    assert np.array_equal(pictures, data.observations["street"].numpy())
    assert styles["font"].tolist() == data.attributes["font"].tolist()


def test_every_scan_is_used_equally_often(train):
    used, labels = np.bincount(scans_of(train), minlength=1197), embedded_scans("train")[1]
    for label in range(10):
        assert np.ptp(used[labels == label]) <= 1


def test_given_the_label_the_styles_are_independent(train):
    scan, labels = scans_of(train) % 6, train.labels.numpy()
    font, offset = (train.attributes[name].numpy() for name in ("font", "offset"))
    brightness = train.observations["street"].float().mean((1, 2, 3)).numpy()
    bright = np.digitize(brightness, np.quantile(brightness, [0.25, 0.5, 0.75]))
    pairs = {
        "scan, font": (scan, font),
        "scan, offset": (scan, offset),
        "font, offset": (font, offset),
        "scan, brightness": (scan, bright),
        "offset, brightness": (offset, bright),
    }
    for label in range(10):
        own = labels == label
        for name, (a, b) in pairs.items():
            assert dependence(a[own], b[own]) > RARE / 10, (label, name)
        assert dependence(scan[own], scan[own]) < RARE / 10  # the test can fail


def dependence(a, b):
    """p of the chi-squared test that two columns of small numbers are independent."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    return chi2_contingency(table[table.any(1)][:, table.any(0)]).pvalue


def test_fonts_do_not_follow_the_label(train):
    assert dependence(train.labels.numpy(), train.attributes["font"].numpy()) > RARE


def test_same_arguments_same_bytes_and_other_arguments_other_bytes():
    arguments = [("train", 50, 0), ("train", 50, 1), ("val", 50, 0), ("test", 50, 0)]
    first, second = (
        [load_dataset("mst", s, size=n, seed=k).fingerprint for s, n, k in arguments]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == len(arguments)


def test_splits_share_no_picture(train):
    seen = {"train": train} | {s: load_dataset("mst", s, seed=1) for s in ("val", "test")}
    for name in ("digit", "street"):
        pictures = {
            split: {picture.tobytes() for picture in data.observations[name].numpy()}
            for split, data in seen.items()
        }
        assert len(set.union(*pictures.values())) == sum(map(len, pictures.values()))
    assert len({street.tobytes() for street in train.observations["street"].numpy()}) == 10_000


@pytest.mark.parametrize(("split", "size"), [("test", 700), ("val", 100)])
def test_the_leading_items_repeat_no_scan(split, size):
    data = load_dataset("mst", split, size=size)
    assert data.distinct == min(size, 300)
    scans = scans_of(data)
    assert len(np.unique(scans[: data.distinct])) == data.distinct == len(np.unique(scans))


# Real


@pytest.fixture
def raw_root(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist", monkeypatch)
    write_svhn(tmp_path / "svhn", monkeypatch)
    return tmp_path


def real(root, split="train", **arguments):
    return load_dataset("mst", split, source="real", root=root, **arguments)


def raw(split):
    """Scans, street numbers and their labels of a split, as they should be: the last in twelve."""
    mnist, svhn = ("t10k", "test") if split == "test" else ("train", "train")
    (scans, digits), (streets, numbers) = small_mnist(mnist), small_svhn(svhn)
    parts = []
    for column in (scans, digits, streets, numbers):
        cut = len(column) - len(column) // 12
        parts.append({"train": column[:cut], "val": column[cut:], "test": column}[split])
    return parts


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_real_items_pair_pictures_of_their_split_by_label(raw_root, split):
    scans, digits, streets, numbers = raw(split)
    data = real(raw_root, split, size=600)
    assert (data.name, data.split, data.source) == ("mst", split, "real")
    columns = {"digit": (scans, digits), "street": (streets, numbers)}
    for name, (source, labels) in columns.items():
        at = positions(data.observations[name].numpy(), source)
        assert np.array_equal(labels[at], data.labels.numpy())
        used = np.bincount(at, minlength=len(source))
        drawn = set(data.labels.tolist())
        assert all(np.ptp(used[labels == label]) <= 1 for label in drawn)
        assert used[np.isin(labels, list(drawn))].min() > 0
        assert len(np.unique(at[: data.distinct])) == data.distinct
    assert torch.equal(mst.read_word(texts_of(data)), data.labels)


def test_real_pairs_share_the_label_alone(raw_root):
    scans, _, streets, _ = raw("train")
    data = real(raw_root, size=6000)
    scan = positions(data.observations["digit"].numpy(), scans)
    other = positions(data.observations["street"].numpy(), streets)
    for label in range(10):
        own = data.labels.numpy() == label
        a, b = (np.unique(column[own], return_inverse=True)[1] % 6 for column in (scan, other))
        place = data.attributes["offset"].numpy()[own]
        pairs = {"scan, street": (a, b), "scan, place": (a, place), "street, place": (b, place)}
        for name, pair in pairs.items():
            assert dependence(*pair) > RARE, (label, name)
        for column in (a, b, place):
            assert dependence(column, column) < RARE  # the test can fail


def test_real_data_are_the_same_again(raw_root):
    assert real(raw_root, size=90).fingerprint == real(raw_root, size=90).fingerprint
    assert real(raw_root, size=90).fingerprint != real(raw_root, size=90, seed=1).fingerprint


def test_the_usual_real_sizes(raw_root):
    for split, size in (("val", 5_000), ("test", 10_000)):
        assert len(real(raw_root, split)) == size
    assert mst.SIZES["real"]["train"] == 60_000


@pytest.mark.parametrize(
    "missing", ["mnist/train-images-idx3-ubyte.gz", "svhn/train_32x32.mat", "svhn", "mnist"]
)
def test_what_is_missing_is_named_with_how_to_prepare_it(raw_root, missing):
    (raw_root / missing).rename(raw_root / "elsewhere")
    with pytest.raises(FileNotFoundError) as caught:
        real(raw_root)
    message = str(caught.value)
    assert missing in message
    assert f"python -m data_scripts.mst --root {raw_root}" in message
    assert "$SHALA_DATA" in message


def test_a_damaged_file_is_an_error_that_names_it(raw_root):
    path = raw_root / "svhn" / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"test_32x32\.mat: damaged, truncated"):
        real(raw_root, "test")
    assert len(real(raw_root, "val", size=5)) == 5


@needs_real
def test_the_real_files_give_sets_of_one_digit():
    data = load_dataset("mst", "test", source="real", root=REAL, size=2000)
    assert torch.equal(mst.read_word(texts_of(data)), data.labels)
    counts = torch.bincount(data.labels, minlength=10) / 2000  # MNIST's own frequencies
    assert abs(counts[1] - 0.1135) < 0.03
    again = load_dataset("mst", "test", source="real", root=REAL, size=2000)
    assert data.fingerprint == again.fingerprint
