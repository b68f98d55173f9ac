"""The published PolyMNIST: its layout of PNG files, and the arrays made of it.

The archive (Zenodo record 4899160) holds ``{train,test}/m{k}/{i}.{digit}.png``. The number i
counts within a digit, so that an item is known by the pair (i, digit), and the five files of one
pair are its five images. The published sets have no ``val``: one item in twelve of ``train``,
5,000 of 60,000, is set aside for it, always the same ones.

``data_scripts/polymnist.py`` turns the PNG files into arrays once: ``{split}_m{k}.npy`` uint8
(N, 3, 28, 28), ``{split}_labels.npy`` int64 (N,), and ``polymnist.json`` with their sha256 and
origin. Either form gives the same bytes; the arrays load in seconds, the files in minutes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAYS = "polymnist_arrays"  # folder under the data root
MANIFEST = "polymnist.json"  # in that folder; written last
FOLDERS = ("PolyMNIST", "MMNIST")  # under the data root, where the archive lies unpacked
VAL_ONE_IN = 12
VIEWS = 5

Key = tuple[int, int]  # (i, digit)
Index = dict[str, list[dict[Key, str]]]  # for each split, for each modality: key -> file name

_MEMBER = re.compile(r"(?:^|/)(train|test)/m([0-4])/(\d+)\.(\d)\.png$")


def index_names(names: Iterable[str], origin: Path | str) -> Index:
    """Sort file names of the archive's layout into splits and modalities; others are passed by.

    Returns:
        For each split, for each of the five modalities, the file name of every item, all five
        in one order.

    Raises:
        ValueError: where a split is missing, or an item lacks one of its five images.
    """
    found: Index = {split: [{} for _ in range(VIEWS)] for split in ("train", "test")}
    for name in names:
        if match := _MEMBER.search(name):
            split, view, number, digit = match.groups()
            found[split][int(view)][int(number), int(digit)] = name
    for split, views in found.items():
        if not views[0]:
            raise ValueError(f"{origin}: nothing of the form {split}/m0/<i>.<digit>.png in it")
        for k, view in enumerate(views):
            if odd := views[0].keys() ^ view.keys():
                number, digit = min(odd)
                raise ValueError(
                    f"{origin}: {split}/m0 and {split}/m{k} do not hold the same items: "
                    f"{number}.{digit}.png is in one of them only ({len(odd):,} such names)"
                )
    return {
        split: [{key: view[key] for key in sorted(view)} for view in views]
        for split, views in found.items()
    }


def index_folder(folder: Path) -> Index:
    """``index_names`` of what lies in a folder."""
    files = folder.glob("*/m[0-4]/*.png")
    return index_names((file.relative_to(folder).as_posix() for file in files), folder)


def decode(names: Iterable[str], read: Callable[[str], bytes]) -> NDArray[np.uint8]:
    """The named PNG files as (N, 3, 28, 28) uint8.

    Args:
        names: which files, in order.
        read: gives the content of a file by its name.

    Raises:
        ValueError: for a file that is no picture or has another size.
    """
    from PIL import Image, UnidentifiedImageError

    images = []
    for name in names:
        try:
            with Image.open(io.BytesIO(read(name))) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ValueError(f"{name}: cannot be read as a picture ({error})") from error
        if pixels.shape != (28, 28, 3):
            raise ValueError(f"{name}: expected 28x28 pixels, got {pixels.shape[:2]}")
        images.append(pixels)
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def positions(count: int, split: str, size: int | None, seed: int) -> NDArray[np.int64]:
    """Which of ``count`` items of the archive's train or test part make up a split.

    Raises:
        ValueError: where ``size`` is more than there are: published sets cannot be extended.
    """
    chosen = np.random.default_rng(4899160).permutation(count)
    held_out = count // VAL_ONE_IN
    if split != "test":
        chosen = chosen[:held_out] if split == "val" else chosen[held_out:]
    if size is None:
        return chosen
    if size > len(chosen):
        raise ValueError(
            f"size: the archive has {len(chosen):,} items for {split!r}, expected no more, "
            f"got {size:,}"
        )
    return np.random.default_rng([seed, 4899160]).permutation(chosen)[:size]


def read_folder(
    folder: Path, split: str, size: int | None, seed: int
) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """The images of a split, one array a modality, and labels, from the PNG files."""
    views = index_folder(folder)[_part(split)]
    keys = list(views[0])
    chosen = [keys[at] for at in positions(len(keys), split, size, seed)]
    columns = [
        decode((view[key] for key in chosen), lambda name: (folder / name).read_bytes())
        for view in views
    ]
    return columns, np.array([digit for _, digit in chosen], np.int64)


def read_arrays(
    folder: Path, split: str, size: int | None, seed: int
) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """The images of a split, one array a modality, and labels, from the prepared arrays.

    Raises:
        ValueError: where a file is missing or is not the one that the manifest describes.
    """
    sums = read_manifest(folder)["sha256"]
    part = _part(split)
    labels = _read_checked(folder, f"{part}_labels.npy", sums)
    chosen = positions(len(labels), split, size, seed)
    columns = [_read_checked(folder, f"{part}_m{k}.npy", sums)[chosen] for k in range(VIEWS)]
    return columns, labels[chosen]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the JSON file beside the prepared arrays says."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["sha256"], dict):
            raise TypeError("sha256 is not an object")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a manifest of prepared arrays ({error!r})") from error
    return manifest


def _part(split: str) -> str:
    return "test" if split == "test" else "train"


def _read_checked(folder: Path, name: str, sums: dict[str, str]) -> NDArray[Any]:
    path = folder / name
    if name not in sums or not path.is_file():
        raise ValueError(f"{path}: missing. Remove {folder} and prepare the data again")
    content = path.read_bytes()
    seen = hashlib.sha256(content).hexdigest()
    if seen != sums[name]:
        raise ValueError(
            f"{path}: damaged: its sha256 is {seen}, {MANIFEST} says {sums[name]}. "
            f"Remove {folder} and prepare the data again"
        )
    return np.load(io.BytesIO(content), allow_pickle=False)
