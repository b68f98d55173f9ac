"""The embedded digits: scikit-learn's 1,797 handwritten scans, enlarged and split by scan.

A pixel of these 8x8 scans counts the ink in a 4x4 block of the original bitmap: 0 to 16. So an
enlarged scan should hold the same ink where the scan has it. Plain interpolation does not: a thin
stroke that straddles two pixels falls below the threshold and the digit breaks open. Here the
enlarged scan is smoothed and sharpened in turn, and each block is given back the ink it lost.

As in ``textures``, only operations whose last bit IEEE arithmetic fixes are used.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 28
FACTOR = 3  # each pixel becomes 3x3; 8 * 3 = 24, and a margin of 2 goes around
HELD_OUT_PER_CLASS = 30
_ROUNDS = 5
_GAIN = 1.5  # above 1, so that five rounds are enough to restore the ink


def embedded_scans(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The scans of one split: (K, 28, 28) uint8, bright on black, and their digits (K,).

    30 scans of every digit belong to ``val``, 30 to ``test`` and the others (1,197 in all) to
    ``train``. The assignment is fixed: no seed of a data set changes it.
    """
    scans, labels = _all_scans()
    rng = np.random.default_rng(1797)
    members: dict[str, list[NDArray[np.int64]]] = {"train": [], "val": [], "test": []}
    for label in range(10):
        pool = rng.permutation(np.flatnonzero(labels == label))
        cuts = (HELD_OUT_PER_CLASS, 2 * HELD_OUT_PER_CLASS)
        for name, part in zip(("val", "test", "train"), np.split(pool, cuts)):
            members[name].append(part)
    chosen = np.sort(np.concatenate(members[split]))
    return scans[chosen], labels[chosen]


@cache
def _all_scans() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return enlarge(digits.images), digits.target.astype(np.int64)


def enlarge(scans: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Scans (K, 8, 8) with values 0 to 16 as grey pictures (K, 28, 28) with values 0 to 255."""
    ink = scans / 16.0
    fine = _repeat(ink)
    for _ in range(_ROUNDS):
        fine = _blur(fine)
        fine = fine * fine * (3.0 - 2.0 * fine)  # sharpen: towards 0 below 1/2, towards 1 above
        fine = np.clip(fine + _GAIN * _blur(_repeat(ink - _block_mean(fine))), 0.0, 1.0)
    margin = (SIDE - FACTOR * scans.shape[1]) // 2
    grey = np.pad(_blur(fine), ((0, 0), (margin, margin), (margin, margin)))
    return (grey * 255 + 0.5).astype(np.uint8)


def _repeat(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)


def _block_mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # Summed in a fixed order: numpy's own sums may differ in the last bit between machines.
    total = np.zeros_like(x[:, ::FACTOR, ::FACTOR])
    for row in range(FACTOR):
        for column in range(FACTOR):
            total += x[:, row::FACTOR, column::FACTOR]
    return total / FACTOR**2


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights 1, 2, 1 over 4 down and across; zeros outside."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    x = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4
    return (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
