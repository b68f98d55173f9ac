"""The files in which SVHN's cropped digits are given, and which of their bytes are the right ones.

A MATLAB file holds ``X`` (32, 32, 3, N) uint8, the pictures, and ``y`` (N, 1), their digits, in
which 10 stands for 0. (Netzer et al. 2011, "Reading digits in natural images with unsupervised
feature learning".)
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 32
SVHN_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def parse_svhn(
    content: bytes, origin: Path | str = "mat file"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, 3, 32, 32) uint8 and digits (N,), 0 to 9, that a file holds.

    Args:
        content: the whole file.
        origin: what to call it in an error.

    Raises:
        ValueError: for a damaged file, one without X or y, another shape or type, or a label
            that is not among 1 to 10.
    """
    found = _load(content, origin)
    x, y = found["X"], found["y"]
    if x.ndim != 4 or x.shape[:3] != (SIDE, SIDE, 3) or x.dtype != np.uint8:
        raise ValueError(f"{origin}: X: expected (32, 32, 3, N) uint8, got {x.shape} {x.dtype}")
    n = x.shape[3]
    if y.shape != (n, 1) or y.dtype.kind not in "uif":
        raise ValueError(f"{origin}: y: expected {(n, 1)} numbers, got {y.shape} {y.dtype}")
    labels = y[:, 0]
    odd = sorted({float(label) for label in labels if label not in range(1, 11)})
    if odd:
        raise ValueError(
            f"{origin}: y: expected whole numbers from 1 to 10, which is 0; got {odd[:5]}"
        )
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10


def check_svhn(name: str, content: bytes, origin: Path | str) -> None:
    """Raise ValueError unless ``content`` is SVHN's file ``name``, byte for byte."""
    seen = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if seen != SVHN_MD5[name]:
        raise ValueError(
            f"{origin}: the content has md5 {seen}, but SVHN's {name} has {SVHN_MD5[name]}: "
            "damaged, or another data set under SVHN's name"
        )


def read_svhn(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, 3, 32, 32) uint8 and digits (N,) of SVHN's ``part``, ``train`` or ``test``.

    Raises:
        FileNotFoundError: naming the file that is missing.
        ValueError: where a file is damaged, holds other arrays (see `parse_svhn`) or is not SVHN's.
    """
    name = f"{part}_32x32.mat"
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    content = path.read_bytes()
    found = parse_svhn(content, path)  # says more about a wrong file than a checksum does
    check_svhn(name, content, path)
    return found


def _load(content: bytes, origin: Path | str) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found = loadmat(io.BytesIO(content), variable_names=("X", "y"))
    except Exception as error:  # what a damaged file makes of scipy is not documented
        raise ValueError(
            f"{origin}: damaged, truncated or no MATLAB file "
            f"({type(error).__name__}: {error or 'no more is known'})"
        ) from error
    for name in ("X", "y"):
        if not isinstance(found.get(name), np.ndarray):
            raise ValueError(f"{origin}: holds no array {name}, expected X and y")
    return found
