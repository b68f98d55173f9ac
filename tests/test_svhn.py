import numpy as np
import pytest
from scipy.io import savemat
from small_files import small_svhn, svhn_bytes, write_svhn

from shala_lite.datasets import svhn

X = np.random.default_rng(0).integers(256, size=(32, 32, 3, 4), dtype=np.uint8)
Y = np.array([[10], [1], [9], [10]], np.uint8)
GOOD = svhn_bytes(X=X, y=Y)


def test_rows_channels_and_items_find_their_places():
    pictures, labels = svhn.parse_svhn(GOOD)
    assert pictures.shape == (4, 3, 32, 32)
    assert pictures.dtype == np.uint8
    for item, row, column, channel in np.ndindex(4, 32, 32, 3):
        assert pictures[item, channel, row, column] == X[row, column, channel, item]
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 9, 0]  # ten is nought


def test_labels_may_be_floats_and_other_variables_are_passed_by():
    content = svhn_bytes(X=X, y=Y.astype(float), extra=np.zeros(3))
    assert svhn.parse_svhn(content)[1].tolist() == [0, 1, 9, 0]


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"X": X}, "f: holds no array y"),
        ({"y": Y}, "f: holds no array X"),
        ({"X": X[:28], "y": Y}, r"f: X: .*\(28, 32, 3, 4\)"),
        ({"X": X[..., 0], "y": Y}, r"f: X: .*\(32, 32, 3\)"),
        ({"X": X.transpose(3, 0, 1, 2), "y": Y}, r"f: X: .*\(4, 32, 32, 3\)"),
        ({"X": X / 255, "y": Y}, "f: X: .*float64"),
        ({"X": X, "y": Y[:3]}, r"f: y: expected \(4, 1\) numbers, got \(3, 1\)"),
        ({"X": X, "y": Y.T}, r"f: y: .*\(1, 4\)"),
        ({"X": X, "y": np.array([["a"]] * 4, object)}, "f: y: .*object"),
        ({"X": X, "y": np.array([[0], [1], [2], [3]])}, r"f: y: .*1 to 10.*\[0.0\]"),
        ({"X": X, "y": np.array([[11], [1], [2], [-3]])}, r"f: y: .*\[-3.0, 11.0\]"),
        ({"X": X, "y": np.array([[1.5], [1], [2], [3]])}, r"f: y: .*\[1.5\]"),
        ({"X": X, "y": np.array([[np.nan], [1], [2], [3]])}, r"f: y: .*\[nan\]"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(arrays, complaint):
    with pytest.raises(ValueError, match=complaint):
        svhn.parse_svhn(svhn_bytes(**arrays), "f")


@pytest.mark.parametrize("content", [b"", b"no mat", bytes(500), b"\x89HDF\r\n\x1a\n" + bytes(900)])
def test_what_is_no_matlab_file_is_named(content):
    with pytest.raises(ValueError, match="f: damaged, truncated or no MATLAB file"):
        svhn.parse_svhn(content, "f")


def test_every_shorter_file_is_refused():
    for length in [*range(0, 400, 7), *range(400, len(GOOD), 97), len(GOOD) - 1]:
        with pytest.raises(ValueError, match=r"^f: "):
            svhn.parse_svhn(GOOD[:length], "f")


def holds_pictures_or_says_why(content):
    try:
        pictures, labels = svhn.parse_svhn(content, "f")
    except ValueError as error:
        return str(error).startswith("f: ")
    return pictures.shape == (len(labels), 3, 32, 32)


def test_a_turned_byte_is_a_value_error_whatever_scipy_makes_of_it():
    # Or another picture, where the format has no checksum; the md5 sees that.
    rng = np.random.default_rng(0)
    for at in rng.integers(len(GOOD), size=300):
        damaged = bytearray(GOOD)
        damaged[at] ^= 1 << int(rng.integers(8))
        assert holds_pictures_or_says_why(bytes(damaged))


def test_reading_checks_the_md5(tmp_path, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    for part in ("train", "test"):
        pictures, labels = svhn.read_svhn(tmp_path, part)
        assert np.array_equal(pictures, small_svhn(part)[0])
        assert np.array_equal(labels, small_svhn(part)[1])
    savemat(tmp_path / "test_32x32.mat", {"X": X, "y": Y})
    with pytest.raises(ValueError, match=r"test_32x32\.mat.*md5.*another data set"):
        svhn.read_svhn(tmp_path, "test")


def test_a_file_without_pictures_is_told_so_and_not_its_md5(tmp_path):
    for arrays, lacking in (({"y": Y}, "X"), ({"X": X}, "y"), ({}, "X")):
        savemat(tmp_path / "train_32x32.mat", arrays)
        expected = rf"^{tmp_path}/train_32x32\.mat: holds no array {lacking}, expected X and y$"
        with pytest.raises(ValueError, match=expected):
            svhn.read_svhn(tmp_path, "train")
    (tmp_path / "train_32x32.mat").write_bytes(GOOD[:-1])
    with pytest.raises(ValueError, match=r"train_32x32\.mat: damaged, truncated"):
        svhn.read_svhn(tmp_path, "train")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*train_32x32\.mat"):
        svhn.read_svhn(tmp_path, "train")


def test_the_checksums_are_those_of_the_published_files():
    assert svhn.SVHN_MD5 == {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    }
