"""PolyMNIST with thin coloured frames: an attribute that some views share and the others lack.

Views of PolyMNIST share their digit and nothing else, so whoever gets the digit right agrees with
everything. Here every item has one of four colours besides, drawn apart from its digit, and shows
it as a frame of 2 pixels around each of the views that are named. The other views do not know it:
given one of them alone, the colour is open, and the named views must still agree on one.

The colours are corners of a regular tetrahedron of the colour cube. So none is nearer than another
to their mean, and no reading of a picture that shows the mean is favoured.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import polymnist
from .base import MultimodalDataset

COLOURS = ("cyan", "magenta", "yellow", "black")
RGB = ((0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0))
WIDTH = 2  # pixels; embedded digits keep a margin of 2, MNIST's of 4
ATTRIBUTE = "frame"
FRAMED = ("m1", "m2", "m3", "m4")  # of `polymnist_frames`; m0 does not know the colour


class Reading(NamedTuple):
    """Position (N,) int64 in `COLOURS` of the nearest, and how far off it is (N,), in [0, 1]."""

    colour: Tensor
    distance: Tensor


def border(height: int, width: int) -> Tensor:
    """The pixels of a frame, (height, width) bool."""
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[WIDTH:-WIDTH, WIDTH:-WIDTH] = True
    return ~inside


def with_frames(
    dataset: MultimodalDataset, names: Sequence[str], seed: int = 0
) -> MultimodalDataset:
    """The same items, each with a colour that frames the views of these names.

    The colour of an item is drawn uniformly and apart from its class. It is kept in
    `attributes["frame"]`, as a position in `COLOURS`.

    Args:
        dataset: of images with three channels.
        names: the views that show the colour.
        seed: of the colours; splits and sources of one seed draw apart.

    Raises:
        ValueError: an unknown name, or a view that is no colour image larger than the frame.
    """
    shapes = {modality.name: modality.shape for modality in dataset.modalities}
    if not names or not set(names) <= set(shapes):
        raise ValueError(f"names: {list(names)}, expected some of {list(shapes)}")
    for name in names:
        if len(shapes[name]) != 3 or shapes[name][0] != 3 or min(shapes[name][1:]) <= 2 * WIDTH:
            raise ValueError(f"names: {name!r} of shape {shapes[name]}, expected (3, H, W)")
    key = zlib.crc32(f"frames/{dataset.source}/{dataset.split}".encode())
    drawn = np.random.default_rng([seed, key]).integers(len(COLOURS), size=len(dataset))
    colour = torch.from_numpy(drawn.astype(np.int64)).to(dataset.device)
    paint = torch.tensor(RGB, dtype=torch.uint8, device=dataset.device)[colour]  # (N, 3)
    observations = dict(dataset.observations)
    for name in names:
        at = border(*shapes[name][1:]).to(dataset.device)
        observations[name] = torch.where(at, paint[:, :, None, None], observations[name])
    return replace(
        dataset,
        observations=observations,
        attributes={**dataset.attributes, ATTRIBUTE: colour},
        note=f"{dataset.note}, with frames of one colour an item on {', '.join(names)}",
        _fingerprint=None,
    )


def read_frames(images: Tensor) -> Reading:
    """The nearest colour to the median of each channel over the frame, without a network.

    The median, because a few stray pixels should not decide. The distance is the mean over the
    channels of the absolute difference: 0 is a clean frame, 0.5 the grey between all four.

    Args:
        images: (N, 3, H, W), uint8 or floats in [0, 1].

    Raises:
        ValueError: another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images: shape {tuple(images.shape)}, expected (N, 3, H, W)")
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    seen = pixels[:, :, border(*images.shape[2:]).to(images.device)].median(-1).values  # (N, 3)
    known = torch.tensor(RGB, device=images.device) / 255
    distance = (seen[:, None] - known).abs().mean(-1)  # (N, colours)
    nearest = distance.min(1)
    return Reading(nearest.indices, nearest.values)


def embedded(split: str, size: int | None, seed: int) -> MultimodalDataset:
    """`polymnist.embedded` with frames on `FRAMED`."""
    return _framed(polymnist.embedded(split, size, seed), seed)


def real(split: str, size: int | None, seed: int, root: Path) -> MultimodalDataset:
    """`polymnist.real` with frames on `FRAMED`."""
    return _framed(polymnist.real(split, size, seed, root), seed)


def _framed(data: MultimodalDataset, seed: int) -> MultimodalDataset:
    return replace(with_frames(data, FRAMED, seed), name="polymnist_frames")
