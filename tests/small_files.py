"""Small files in the formats of MNIST, SVHN and the published PolyMNIST, for the tests to read."""

import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from shala_lite.datasets import idx, svhn

PARTS = {"train": 240, "t10k": 60}  # scans; every digit equally often


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def png_bytes(image):
    """The PNG file of an image (3, H, W) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "PNG")
    return buffer.getvalue()


def small_mnist(part):
    """Random scans, all different, (K, 28, 28) uint8, and labels (K,) uint8."""
    rng = np.random.default_rng(len(part))
    scans = rng.integers(256, size=(PARTS[part], 28, 28), dtype=np.uint8)
    return scans, (np.arange(PARTS[part]) % 10).astype(np.uint8)


def write_mnist(folder: Path, monkeypatch):
    """Four idx files in ``folder``, accepted as MNIST's while the test runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        scans, labels = small_mnist(part)
        for stem, array in (("images-idx3", scans), ("labels-idx1", labels)):
            name, content = f"{part}-{stem}-ubyte", idx_bytes(array)
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            monkeypatch.setitem(idx.MNIST_MD5, name, hashlib.md5(content).hexdigest())


def svhn_bytes(**arrays):
    """The MATLAB file of arrays, compressed as SVHN's are."""
    buffer = io.BytesIO()
    savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


def small_svhn(part):
    """Random pictures, all different, (K, 3, 32, 32) uint8, and digits (K,), ones twice as often.

    There are more of them than of small_mnist's scans, as in the real data.
    """
    rng = np.random.default_rng(len(part))
    digits = np.tile([0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9], 5 * len(part))
    return rng.integers(256, size=(len(digits), 3, 32, 32), dtype=np.uint8), digits


def write_svhn(folder: Path, monkeypatch):
    """Two MATLAB files in ``folder``, accepted as SVHN's while the test runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        pictures, digits = small_svhn(part)
        y = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
        content = svhn_bytes(X=pictures.transpose(2, 3, 1, 0), y=y)
        (folder / f"{part}_32x32.mat").write_bytes(content)
        md5 = hashlib.md5(content).hexdigest()
        monkeypatch.setitem(svhn.SVHN_MD5, f"{part}_32x32.mat", md5)


def write_pictures(folder: Path):
    """Five pictures; the names sort the other way round than they are written."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in (4, 3, 2, 1, 0):
        pixels = np.random.default_rng(k).integers(256, size=(3, 40, 50), dtype=np.uint8)
        (folder / f"m{k}_picture.png").write_bytes(png_bytes(pixels))


def archive_files(items=None):
    """Name -> PNG bytes in the published layout; i counts within a digit, as it does there."""
    files = {}
    for split, count in (items or {"train": 48, "test": 20}).items():
        for item in range(count):
            i, digit = divmod(item, 10)
            for k in range(5):
                image = np.random.default_rng([count, item, k]).integers(
                    256, size=(3, 28, 28), dtype=np.uint8
                )
                files[f"{split}/m{k}/{i}.{digit}.png"] = png_bytes(image)
    return files


def write_archive(folder: Path):
    for name, content in archive_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
