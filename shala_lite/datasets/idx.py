"""The idx files in which MNIST is given, and which of its bytes are the right ones.

An idx file is a magic number (two zero bytes, a type, the number of axes), the length of each
axis as a big-endian 32-bit integer, then the numbers themselves in C order.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# md5 of the DECOMPRESSED files. The same content is passed around under several gzip headers,
# so a checksum of the .gz file would refuse good copies.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed where it begins like a gzip file.

    Raises:
        ValueError: where the compressed data are damaged or break off.
    """
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or truncated gzip file ({error})") from error


def parse_idx(content: bytes, origin: Path | str = "idx file") -> NDArray[np.uint8]:
    """The array of bytes that an idx file holds.

    Args:
        content: the whole decompressed file.
        origin: what to call it in an error.

    Raises:
        ValueError: for another magic number, or a length other than the header announces.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] < 1:
        raise ValueError(
            f"{origin}: not an idx file of unsigned bytes: it starts with "
            f"{content[:4].hex() or 'nothing'}, expected 000008 and the number of axes"
        )
    axes = content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{origin}: truncated: the header alone takes {start} bytes")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, offset=4))
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        kind = "truncated" if len(content) < expected else "too long"
        raise ValueError(
            f"{origin}: {kind}: the header says {shape}, that is {expected:,} bytes in all, "
            f"but there are {len(content):,}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def check_mnist(stem: str, content: bytes, origin: Path | str) -> None:
    """Raise ValueError unless ``content`` is MNIST's file ``stem``, byte for byte."""
    seen = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if seen != MNIST_MD5[stem]:
        raise ValueError(
            f"{origin}: the decompressed content has md5 {seen}, but MNIST's {stem} has "
            f"{MNIST_MD5[stem]}: damaged, or another data set under MNIST's name"
        )


def read_mnist(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 28, 28) uint8 and labels (N,) of MNIST's ``part``, ``train`` or ``t10k``.

    Raises:
        FileNotFoundError: naming the file that is missing.
        ValueError: where a file is damaged or is not MNIST's.
    """
    images, labels = (
        _read_checked(folder, f"{part}-{what}-ubyte") for what in ("images-idx3", "labels-idx1")
    )
    return images, labels.astype(np.int64)


def find_mnist(folder: Path, stem: str) -> Path | None:
    """The file ``stem`` in ``folder``, compressed or not; None where there is neither."""
    candidates = (folder / f"{stem}.gz", folder / stem)
    return next((path for path in candidates if path.is_file()), None)


def _read_checked(folder: Path, stem: str) -> NDArray[np.uint8]:
    path = find_mnist(folder, stem)
    if path is None:
        raise FileNotFoundError(f"there is no {folder / stem}.gz")
    content = read_bytes(path)
    check_mnist(stem, content, path)
    return parse_idx(content, path)
