"""Which object belongs to train, val or test: families stay whole, and shares are kept.

Two objects of a category whose silhouettes agree in all views are one shape, whatever their names
and colours, and their families become one. For silhouettes a and b, alpha in [0, 1],

    difference = sum (a - b)^2 / sum (a + b)

which is 0 for equal ones and near 1 for disjoint ones.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
# The largest difference of two objects that count as one shape. In the archive variants of a model
# differ in details too, and there are few models; elsewhere chance likenesses would chain up.
ALIKE = {"archive": 0.005, "folder": 0.0005, "shapenet": 0.0005}
_CELLS = 16  # silhouettes are compared at so many pixels a side
_ROWS = 1000  # compared at a time


def merge_alike(
    families: Sequence[str],
    categories: Sequence[str],
    silhouettes: Callable[[int], np.ndarray],
    tolerance: float,
) -> list[str]:
    """Families of N objects, after those that share a shape have become one.

    Args:
        families, categories: of each object.
        silhouettes: its alpha in all views, (M, side, side) uint8.
        tolerance: the largest difference of one shape.

    Returns:
        For each object the first name, in the order of the alphabet, of the families that became
        its own.
    """
    leader = {family: family for family in families}

    def first(family: str) -> str:
        while leader[family] != family:
            family = leader[family]
        return family

    for category in sorted(set(categories)):
        at = [k for k, own in enumerate(categories) if own == category]
        x = np.stack([_coarse(silhouettes(k)) for k in at])
        size, square = x.sum(1), (x**2).sum(1)
        for start in range(0, len(at), _ROWS):
            rows = slice(start, start + _ROWS)
            apart = square[rows, None] + square - 2 * x[rows] @ x.T
            close = apart <= tolerance * np.maximum(size[rows, None] + size, 1e-6)
            for row, column in zip(*np.nonzero(close)):
                a, b = sorted((first(families[at[start + row]]), first(families[at[column]])))
                leader[b] = a
    return [first(family) for family in families]


def deal_splits(families: Sequence[str], categories: Sequence[str]) -> list[str]:
    """The split of each object. It does not depend on their order.

    In each category families go, the large ones first, to the split that lacks most objects.

    Raises:
        ValueError: fewer than three families.
    """
    members = defaultdict(list)
    for at, family in enumerate(families):
        members[family].append(at)
    if len(members) < len(SHARES):
        raise ValueError(
            f"families: {len(members)} of meshes that differ, expected at least one "
            f"for each of {', '.join(SHARES)}"
        )
    home = {family: min(categories[at] for at in own) for family, own in members.items()}
    order = sorted(members, key=lambda f: (-len(members[f]), hashlib.sha256(f.encode()).digest()))
    chosen: dict[str, str] = {}
    for category in sorted(set(home.values())):
        own = [family for family in order if home[family] == category]
        lacking = {
            split: share * sum(len(members[f]) for f in own) for split, share in SHARES.items()
        }
        for family in own:
            chosen[family] = max(lacking, key=lambda split: lacking[split])
            lacking[chosen[family]] -= len(members[family])
    for split in SHARES:  # where there are few families
        if split not in chosen.values():
            taken = list(chosen.values())
            rich = [family for family in order if taken.count(chosen[family]) > 1]
            chosen[rich[-1]] = split
    return [chosen[family] for family in families]


def _coarse(alpha: np.ndarray) -> np.ndarray:
    """Silhouettes (M, side, side) as one row of float32 in [0, 1], with at most 16 x 16 a view."""
    side = alpha.shape[-1]
    cell = -(-side // _CELLS)
    edge = -side % cell
    whole = np.pad(alpha, ((0, 0), (0, edge), (0, edge))).astype(np.float32) / 255
    shape = (len(whole), whole.shape[1] // cell, cell, whole.shape[2] // cell, cell)
    return whole.reshape(shape).mean((2, 4)).ravel()
