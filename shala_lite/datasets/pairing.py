"""Which source is shown in which item, where modalities share a label and nothing else.

The labels of the items follow the frequencies of a first source. Each modality then deals its
own source out by class-wise random permutations, independently of the others, so that each
picture is used as often as any other of its class, give or take one.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from .archive import VAL_ONE_IN

Integers = NDArray[np.int64]


def draw_labels(labels: Integers, size: int, rng: np.random.Generator) -> Integers:
    """Labels (size,) of items, in random order, as frequent as among ``labels`` (K,)."""
    rounds = -(-size // len(labels))
    return labels[np.concatenate([rng.permutation(len(labels)) for _ in range(rounds)])[:size]]


def deal(labels: Integers, drawn: Integers, rng: np.random.Generator) -> Integers:
    """For each drawn label (N,) the position in ``labels`` of one of that class, dealt out evenly.

    Raises:
        ValueError: where nothing in ``labels`` has a drawn label.
    """
    chosen = np.empty(len(drawn), np.int64)
    for label in np.unique(drawn):
        pool, items = np.flatnonzero(labels == label), np.flatnonzero(drawn == label)
        if not len(pool):
            raise ValueError(f"labels: none is {label}, expected all that are drawn")
        rounds = -(-len(items) // len(pool))
        dealt = np.concatenate([rng.permutation(pool) for _ in range(rounds)])
        chosen[items] = dealt[: len(items)]
    return chosen


def distinct(*columns: Integers) -> int:
    """How many leading items repeat no source: columns (N,) of positions, one a modality."""
    counts = []
    for chosen in columns:
        repeated = np.ones(len(chosen) + 1, bool)
        repeated[np.unique(chosen, return_index=True)[1]] = False
        counts.append(int(repeated.argmax()))
    return min(counts)


def part_of(split: str, count: int) -> slice:
    """Which of ``count`` published items make up a split; of test items all.

    The last one in twelve training items belongs to ``val``, which published sets do not have.
    """
    first = count - count // VAL_ONE_IN
    return {"train": slice(first), "val": slice(first, count), "test": slice(count)}[split]


def generator(name: str, source: str, split: str, seed: int) -> np.random.Generator:
    """Data sets, sources and splits draw independently under one seed."""
    return np.random.default_rng([seed, zlib.crc32(f"{name}/{source}/{split}".encode())])
