"""Data sets by name. Each lies in memory as uint8; see ``MultimodalDataset``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pooch

from . import cub, frames, mst, polymnist, shapenet
from .base import MultimodalDataset

__all__ = ["MultimodalDataset", "data_root", "load_dataset"]

# Each has embedded(split, size, seed) and real(split, size, seed, root).
DATASETS: dict[str, Any] = {
    "polymnist": polymnist,
    "polymnist_frames": frames,
    "mst": mst,
    "cub": cub,
    "shapenet": shapenet,
    "shapenet_32": shapenet.variant("shapenet_32"),
    "shapenet_64px": shapenet.variant("shapenet_64px"),
}
SPLITS = ("train", "val", "test")
SOURCES = ("embedded", "real")


def load_dataset(
    name: str,
    split: str,
    *,
    source: str = "embedded",
    root: str | Path | None = None,
    size: int | None = None,
    seed: int = 0,
) -> MultimodalDataset:
    """A data set, ready in memory. The same arguments give the same bytes.

    Args:
        name: which data set: ``polymnist``, or ``polymnist_frames``, which adds coloured frames;
            ``mst``, handwritten digits, street numbers and words; ``cub``, birds and sentences;
            ``shapenet``, objects from 16 azimuths, ``shapenet_32``, from 32, and
            ``shapenet_64px``, from 16 at 64x64.
        split: ``train``, ``val`` (every choice is made on it) or ``test`` (scored once).
        source: ``embedded`` needs no file and no network; ``real`` reads what
            ``data_scripts`` prepared under ``root``.
        root: the folder with the real data. None: ``data_root()``.
        size: how many items. None: the usual number for this split and source.
        seed: of everything that is drawn at random. Which scan belongs to which split, and
            the embedded textures, do not depend on it.

    Raises:
        ValueError: for an unknown name, split or source, or a size or seed out of range.
        FileNotFoundError: for real data that are not there, saying how to prepare them.
    """
    _check("name", name, tuple(DATASETS))
    _check("split", split, SPLITS)
    _check("source", source, SOURCES)
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"size: expected a positive integer or None, got {size!r}")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed: expected an integer, 0 or more, got {seed!r}")
    if source == "embedded":
        return DATASETS[name].embedded(split, size, seed)
    return DATASETS[name].real(split, size, seed, data_root(root))


def data_root(root: str | Path | None = None) -> Path:
    """Where real data lie: ``root``, else ``$SHALA_DATA``, else the user's cache folder."""
    return Path(root or os.environ.get("SHALA_DATA") or pooch.os_cache("shala_lite")).expanduser()


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}: expected one of {', '.join(allowed)}, got {value!r}")
