"""PolyMNIST: five images of one digit that share the digit and nothing else.

For every item and modality, independently, another scan of the item's digit is drawn, and a
28x28 crop B of that modality's picture at a random place. With the mask M = scan > 128, the
digit is where the crop is inverted, on all three channels:

    x = B (1 - M) + (1 - B) M

(Sutter, Daunhawer and Vogt 2021, arXiv 2105.02470.) Class-wise random permutations hand out the
scans, so that each is used as often as any other of its class, give or take one.

``embedded`` takes scikit-learn's digits on drawn textures; ``real`` takes what lies under a data
root. Train, val and test share no scan, with one exception: the published archive deals its
training scans out before ``val`` can be set aside (see ``archive``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..modalities import Modality
from . import archive
from .base import MultimodalDataset
from .digits import embedded_scans
from .idx import read_mnist
from .pairing import deal, draw_labels, generator, part_of
from .textures import draw_textures

SIDE = 28
THRESHOLD = 128
MODALITIES = tuple(Modality(f"m{k}", (3, SIDE, SIDE)) for k in range(5))
SIZES = {
    "embedded": {"train": 10_000, "val": 2_000, "test": 2_000},
    "real": {"train": 60_000, "val": 5_000, "test": 10_000},
}
PICTURES = "polymnist_backgrounds"  # folder under the data root
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_CHUNK = 2_000  # items composed at a time: bounds the memory beyond the result itself

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def compose(
    scans: Images,
    labels: Labels,
    pictures: Sequence[Images],
    size: int,
    rng: np.random.Generator,
) -> tuple[list[Images], Labels]:
    """Sets of images, one image for each picture, by the recipe above.

    Args:
        scans: (K, 28, 28) uint8, bright digits on black.
        labels: (K,) the digit of each scan.
        pictures: for each modality a picture (H, W, 3) uint8, each side at least 28.
        size: N, how many sets. Their labels follow the frequencies among the scans.
        rng: the only source of randomness.

    Returns:
        For each picture the images (N, 3, 28, 28) uint8, and the labels (N,).
    """
    drawn = draw_labels(labels, size, rng)
    digits = scans > THRESHOLD
    columns = []
    for picture in pictures:
        chosen = deal(labels, drawn, rng)
        rows = rng.integers(picture.shape[0] - SIDE + 1, size=size)
        cols = rng.integers(picture.shape[1] - SIDE + 1, size=size)
        columns.append(_paint(digits, chosen, picture, rows, cols))
    return columns, drawn


def _paint(
    digits: NDArray[np.bool_],
    chosen: NDArray[np.int64],
    picture: Images,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
) -> Images:
    """Crops of ``picture`` at (rows, cols), inverted where the chosen digits are."""
    windows = sliding_window_view(picture, (SIDE, SIDE), axis=(0, 1))  # (H-27, W-27, 3, 28, 28)
    flips = np.where(digits, np.uint8(255), np.uint8(0))[:, None]
    painted = np.empty((len(chosen), 3, SIDE, SIDE), np.uint8)
    for start in range(0, len(chosen), _CHUNK):
        part = slice(start, start + _CHUNK)
        # 255 - b is b XOR 255 for a byte, and b XOR 0 is b.
        np.bitwise_xor(windows[rows[part], cols[part]], flips[chosen[part]], out=painted[part])
    return painted


def embedded(split: str, size: int | None, seed: int) -> MultimodalDataset:
    """The data set that needs no file: scikit-learn's digits on the drawn textures."""
    scans, labels = embedded_scans(split)
    rng = generator("polymnist", "embedded", split, seed)
    count = SIZES["embedded"][split] if size is None else size
    note = "the recipe of PolyMNIST on scikit-learn's digits and five drawn textures"
    columns, drawn = compose(scans, labels, draw_textures(), count, rng)
    # a round of dealing shows each scan once in every modality
    distinct = min(count, len(scans))
    return _dataset(columns, drawn, split, "embedded", note, distinct)


def real(split: str, size: int | None, seed: int, root: Path) -> MultimodalDataset:
    """What lies under ``root``; the first of these that is there:

    1. ``polymnist_arrays/``: the published archive, prepared by ``data_scripts``;
    2. ``PolyMNIST/`` or ``MMNIST/``: the published archive, unpacked;
    3. ``mnist/`` with the four idx files and ``polymnist_backgrounds/`` with five pictures,
       which become m0 to m4 in the order of their names: composed here by the recipe. The last
       one in twelve of MNIST's training scans, 5,000, belong to ``val``.

    In the first two cases ``seed`` only chooses which items a smaller ``size`` keeps.

    Raises:
        FileNotFoundError: where none of them is there, or a file of the third is missing.
        ValueError: where what is there is damaged.
    """
    if (root / archive.ARRAYS / archive.MANIFEST).is_file():
        columns, labels = archive.read_arrays(root / archive.ARRAYS, split, size, seed)
        return _dataset(columns, labels, split, "real", "the published archive of PolyMNIST")
    for folder in (root / name for name in archive.FOLDERS):
        if (folder / "train" / "m0").is_dir():
            columns, labels = archive.read_folder(folder, split, size, seed)
            return _dataset(columns, labels, split, "real", "the published archive of PolyMNIST")
    try:
        scans, digits = read_mnist(root / "mnist", "t10k" if split == "test" else "train")
        pictures = read_pictures(root / PICTURES)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no real PolyMNIST under {root}: {error}. Prepare it with "
            f"`python -m data_scripts.polymnist --root {root}`, "
            "or name a folder that has it with root= or $SHALA_DATA"
        ) from error
    part = part_of(split, len(scans))
    scans, digits = scans[part], digits[part]
    count = SIZES["real"][split] if size is None else size
    rng = generator("polymnist", "real", split, seed)
    columns, labels = compose(scans, digits, list(pictures.values()), count, rng)
    note = f"the recipe of PolyMNIST on MNIST and the pictures {', '.join(pictures)}"
    return _dataset(columns, labels, split, "real", note, min(count, len(scans)))


def read_pictures(folder: Path) -> dict[str, Images]:
    """The background pictures in a folder, (H, W, 3) uint8, by file name, in its order.

    Raises:
        FileNotFoundError: unless there are five of them.
        ValueError: for a file that cannot be read as a picture, or one smaller than a crop.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if len(files) != len(MODALITIES):
        raise FileNotFoundError(
            f"{folder} must hold {len(MODALITIES)} pictures ({', '.join(PICTURE_SUFFIXES)}), "
            f"it holds {len(files)}"
        )
    return {file.name: read_picture(file) for file in files}


def read_picture(file: Path) -> Images:
    """One background picture, (H, W, 3) uint8; raises ValueError as ``read_pictures`` does."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{file}: cannot be read as a picture ({error})") from error
    if min(pixels.shape[:2]) < SIDE:
        raise ValueError(f"{file}: expected at least {SIDE}x{SIDE} pixels, got {pixels.shape[:2]}")
    return pixels


def _dataset(
    columns: Sequence[Images],
    labels: Labels,
    split: str,
    source: str,
    note: str,
    distinct: int | None = None,
) -> MultimodalDataset:
    return MultimodalDataset(
        modalities=MODALITIES,
        observations={
            modality.name: torch.from_numpy(x) for modality, x in zip(MODALITIES, columns)
        },
        labels=torch.from_numpy(labels),
        name="polymnist",
        split=split,
        source=source,
        note=note,
        distinct=distinct,
    )
