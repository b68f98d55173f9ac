"""Five textures, drawn from a fixed seed, as backgrounds for the embedded digits.

They take the place of PolyMNIST's five pictures. Three demands shape them. They must be unlike
each other in colour and in pattern. The pattern must show within a crop of 28x28 pixels. And a
digit is drawn by inverting its background (b becomes 1 - b), so a pixel near 1/2 hides it:
textures 0, 2 and 4 are dark, 1 and 3 are light, and none comes near the middle.

Only additions, multiplications, divisions, square roots and comparisons are used on top of
uniform random numbers. IEEE arithmetic fixes their last bit, which it does not for a sine or an
exponential, so that every machine draws the same bytes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 512
SEED = 20508
Grid = NDArray[np.float64]


@cache
def draw_textures(side: int = SIDE) -> tuple[NDArray[np.uint8], ...]:
    """Five pictures (side, side, 3) uint8: cells, waves, clouds, dots and wood."""
    painters = (_cells, _waves, _clouds, _dots, _wood)
    pictures = [paint(np.random.default_rng([SEED, k]), side) for k, paint in enumerate(painters)]
    textures = tuple((np.clip(p, 0, 1) * 255 + 0.5).astype(np.uint8) for p in pictures)
    for texture in textures:
        texture.setflags(write=False)  # shared by every caller
    return textures


def _cells(rng: np.random.Generator, side: int) -> Grid:
    nearest, second = _two_nearest(rng, side, spacing=13)
    edge = _smooth((second - nearest) / 3.0)
    tint = _noise(rng, side, 24)
    inside = _mix(tint, (0.02, 0.09, 0.26), (0.02, 0.20, 0.30))
    return _mix(edge, (0.06, 0.36, 0.42), inside)


def _waves(rng: np.random.Generator, side: int) -> Grid:
    y, x = _axes(side)
    bend = 18 * _noise(rng, side, 40)
    stripe = _smooth(2.2 * _triangle((x * 0.35 + y + bend) / 11) - 0.6)
    return _mix(stripe, (1.0, 0.93, 0.74), (0.98, 0.72, 0.22))


def _clouds(rng: np.random.Generator, side: int) -> Grid:
    shade = _smooth(1.8 * _noise(rng, side, 20, octaves=4) - 0.4)
    return _mix(shade, (0.12, 0.0, 0.13), (0.42, 0.04, 0.24))


def _dots(rng: np.random.Generator, side: int) -> Grid:
    nearest, _ = _two_nearest(rng, side, spacing=11)
    dot = 1 - _smooth((nearest - 2.6) / 1.6)
    return _mix(dot, (0.84, 0.96, 0.82), (0.60, 0.84, 0.74))


def _wood(rng: np.random.Generator, side: int) -> Grid:
    y, _ = _axes(side)
    grain = _triangle((y + 10 * _noise(rng, side, 36)) / 7) * 0.6
    fibre = _noise(rng, side, 3)[:, :1] * 0.4
    return _mix(_smooth(grain + fibre), (0.40, 0.25, 0.12), (0.17, 0.09, 0.03))


def _axes(side: int) -> tuple[Grid, Grid]:
    line = np.arange(side, dtype=np.float64)
    return line[:, None], line[None, :]


def _smooth(t: Grid) -> Grid:
    """Smoothstep: 0 below 0, 1 above 1, 3t^2 - 2t^3 between."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _triangle(t: Grid) -> Grid:
    """A triangle wave of period 1 between 0 and 1."""
    return abs(2.0 * (t - np.floor(t)) - 1.0)


def _mix(t: Grid, low: tuple | Grid, high: tuple | Grid) -> Grid:
    """Colours between ``low`` (t = 0) and ``high`` (t = 1)."""
    return np.asarray(low) * (1 - t[..., None]) + np.asarray(high) * t[..., None]


def _noise(rng: np.random.Generator, side: int, spacing: int, octaves: int = 1) -> Grid:
    """Value noise in [0, 1]: random numbers on a lattice, smoothly interpolated."""
    total, weight = np.zeros((side, side)), 0.0
    for octave in range(octaves):
        step = max(2, spacing >> octave)
        knots = rng.random((side // step + 2, side // step + 2))
        at = np.arange(side) // step
        t = _smooth((np.arange(side) % step) / step)
        rows = knots[at] * (1 - t)[:, None] + knots[at + 1] * t[:, None]
        total += (rows[:, at] * (1 - t) + rows[:, at + 1] * t) * 0.5**octave
        weight += 0.5**octave
    return total / weight


def _two_nearest(rng: np.random.Generator, side: int, spacing: int) -> tuple[Grid, Grid]:
    """Distances in pixels to the nearest and second nearest of points scattered one a cell."""
    n = side // spacing + 5
    points = rng.random((n, n, 2)) * spacing
    y, x = _axes(side)
    row, column = (np.arange(side) // spacing + 2 for _ in range(2))
    nearest = np.full((side, side), np.inf)
    second = nearest
    for dy in (-2, -1, 0, 1, 2):
        for dx in (-2, -1, 0, 1, 2):
            point = points[(row + dy)[:, None], (column + dx)[None, :]]
            py = (row + dy - 2)[:, None] * spacing + point[..., 0]
            px = (column + dx - 2)[None, :] * spacing + point[..., 1]
            distance = np.sqrt((y - py) ** 2 + (x - px) ** 2)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    return nearest, second
