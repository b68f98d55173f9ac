r"""Cameras on a circle around an object: how points become pixels, and pixels become rays.

A camera is a matrix P (3, 4) that maps a point x to homogeneous coordinates of a pixel:

    P (x, 1) = w (u, v, 1)            P = K [R | -R c]

u is the column and v the row, both in pixels from the upper left corner of the picture, so that
the centre of the first pixel is (1/2, 1/2); w is the depth along the optical axis. R has the
directions right, down and forward as its rows, and c is the place of the camera. The pixel (u, v)
sees the points c + s d with s > 0 and d proportional to (K R)^-1 (u, v, 1).
(Hartley and Zisserman 2004, Multiple View Geometry, chapter 6.)

All cameras look at the origin from the distance 1 / sin(field of view / 2), at which the unit
sphere just fills the picture. Up is z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rig:
    """M cameras at one height: camera k stands at the azimuth 360 k / M degrees from the axis x.

    Args:
        views: M.
        elevation: of the cameras above the horizon, in degrees.
        side: height and width of a picture, in pixels.
        field_of_view: the angle that a picture spans, in degrees.

    Raises:
        ValueError: an argument out of range.
    """

    views: int = 16
    elevation: float = 20.0
    side: int = 32
    field_of_view: float = 30.0

    def __post_init__(self) -> None:
        for name in ("views", "side"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise ValueError(f"{name}: expected a positive integer, got {number!r}")
        for name, least, most in (("elevation", -90, 90), ("field_of_view", 0, 180)):
            angle = getattr(self, name)
            if not isinstance(angle, int | float) or not least < angle < most:
                raise ValueError(f"{name}: expected degrees in ({least}, {most}), got {angle!r}")
            object.__setattr__(self, name, float(angle))

    @property
    def distance(self) -> float:
        """From the origin to each camera."""
        return 1 / float(np.sin(np.deg2rad(self.field_of_view) / 2))

    def directions(self) -> Floats:
        """Right, down and forward of each camera as unit vectors, (M, 3, 3): the rows of R."""
        azimuth = 2 * np.pi * np.arange(self.views) / self.views
        height = np.full(self.views, np.deg2rad(self.elevation))
        zero = np.zeros(self.views)
        right = np.stack([-np.sin(azimuth), np.cos(azimuth), zero], 1)
        flat = np.stack([np.cos(azimuth), np.sin(azimuth), zero], 1) * np.cos(height)[:, None]
        forward = -flat - np.stack([zero, zero, np.sin(height)], 1)
        return np.stack([right, np.cross(forward, right), forward], 1)

    def places(self) -> Floats:
        """Where each camera stands, (M, 3)."""
        return -self.distance * self.directions()[:, 2]

    def matrices(self) -> Floats:
        """P of each camera, (M, 3, 4)."""
        half = self.side / 2
        focal = half / np.tan(np.deg2rad(self.field_of_view) / 2)
        k = np.array([[focal, 0, half], [0, focal, half], [0, 0, 1]])
        turn = self.directions()
        shift = -np.einsum("mij,mj->mi", turn, self.places())
        return k @ np.concatenate([turn, shift[:, :, None]], 2)


def project(matrices: Floats, points: Floats) -> Floats:
    """Where each camera (M, 3, 4) sees each point (N, 3): (M, N, 2), columns and rows in pixels."""
    seen = np.einsum("mij,nj->mni", matrices[:, :, :3], points) + matrices[:, None, :, 3]
    return seen[..., :2] / seen[..., 2:]


def rays(matrices: Floats, side: int) -> tuple[Floats, Floats]:
    """What each pixel of each camera looks along.

    Args:
        matrices: (M, 3, 4), with w > 0 in front of a camera.
        side: height and width of a picture, in pixels.

    Returns:
        Origins (M, 3), and unit directions (M, side, side, 3) through the centres of the pixels,
        rows before columns.
    """
    back = np.linalg.inv(matrices[:, :, :3])
    origins = -np.einsum("mij,mj->mi", back, matrices[:, :, 3])
    centres = np.arange(side) + 0.5
    v, u = np.meshgrid(centres, centres, indexing="ij")
    pixels = np.stack([u, v, np.ones_like(u)], -1)
    directions = np.einsum("mij,rcj->mrci", back, pixels)
    return origins, directions / np.linalg.norm(directions, axis=-1, keepdims=True)
