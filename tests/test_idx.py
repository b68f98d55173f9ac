import gzip

import numpy as np
import pytest
from small_files import idx_bytes, small_mnist, write_mnist

from shala_lite.datasets import idx

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("shape", [(24,), (2, 12), (2, 3, 4)])
def test_writing_then_reading_is_the_identity(shape):
    array = ARRAY.reshape(shape)
    assert np.array_equal(idx.parse_idx(idx_bytes(array)), array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "f: not an idx file.*nothing"),
        (b"\x00\x00\x0d\x01" + b"\x00" * 8, "starts with 00000d01"),  # floats
        (b"\x1f\x8b\x08\x00", "not an idx file"),
        (idx_bytes(ARRAY)[:10], "truncated: the header alone takes 16 bytes"),
        (idx_bytes(ARRAY)[:-1], r"truncated: the header says \(2, 3, 4\).*40 bytes.*39"),
        (idx_bytes(ARRAY) + b"\x00", "too long"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content, complaint):
    with pytest.raises(ValueError, match=complaint):
        idx.parse_idx(content, "f")


def test_every_shorter_file_is_refused():
    content = idx_bytes(ARRAY)
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"truncated|not an idx"):
            idx.parse_idx(content[:length])


def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path):
    packed = bytearray(gzip.compress(idx_bytes(ARRAY)))
    path = tmp_path / "x.gz"
    path.write_bytes(packed[:-9])
    with pytest.raises(ValueError, match=r"x\.gz: damaged or truncated"):
        idx.read_bytes(path)
    packed[-6] ^= 1  # in the checksum
    path.write_bytes(packed)
    with pytest.raises(ValueError, match=r"x\.gz: damaged or truncated"):
        idx.read_bytes(path)


def test_mnist_is_known_by_its_content_however_it_is_packed(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    scans, labels = small_mnist("train")
    name = "train-images-idx3-ubyte"
    for level in (None, 1, 9):
        content = idx_bytes(scans)
        if level is None:
            (tmp_path / f"{name}.gz").unlink()
            (tmp_path / name).write_bytes(content)
        else:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, level))
        read, digits = idx.read_mnist(tmp_path, "train")
        assert np.array_equal(read, scans)
        assert np.array_equal(digits, labels)


def test_another_data_set_under_the_same_name_is_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    scans, _ = small_mnist("train")
    name = "train-images-idx3-ubyte.gz"
    (tmp_path / name).write_bytes(gzip.compress(idx_bytes(255 - scans)))
    with pytest.raises(ValueError, match=f"{name}.*md5.*another data set"):
        idx.read_mnist(tmp_path, "train")


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte\.gz"):
        idx.read_mnist(tmp_path, "t10k")
