"""Coloured triangles, and the few solids that objects are made of.

A solid is two polygons with as many corners, one above the other, and the band between them:

    box = square, square        tube = regular polygons        cone = a polygon and a point

Faces wind counter-clockwise seen from outside. Angles are in radians, up is the axis z.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

GREY = (128, 128, 128)  # of a surface whose colour is not known
NO_FACES = "it has no faces"
NOT_FINITE = "a vertex is not finite, or further away than 1e30"
BAD_FACES = "a face names a vertex that does not exist"
FLAT = "none of its faces has an area"

Colour = tuple[int, int, int]
Points = NDArray[np.float64]


class Mesh(NamedTuple):
    """Triangles with one colour each.

    Fields:
        vertices: (V, 3) float32.
        faces: (F, 3) int32, three vertices each.
        colours: (F, 3) uint8, red, green and blue.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colours: NDArray[np.uint8]


def join(meshes: Sequence[Mesh]) -> Mesh:
    """All of them as one mesh."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)], dtype=np.int32),
        np.concatenate([mesh.colours for mesh in meshes]),
    )


def fitted(mesh: Mesh) -> Mesh:
    """The same mesh in the unit sphere: the middle of its box is 0, the furthest vertex is at 1.

    Faces without an area are dropped, and so are vertices that no face uses.

    Raises:
        ValueError: ``NO_FACES``, ``NOT_FINITE``, ``BAD_FACES`` or ``FLAT``.
    """
    faces: NDArray = np.asarray(mesh.faces).reshape(-1, 3)
    if not len(faces):
        raise ValueError(NO_FACES)
    if faces.min() < 0 or faces.max() >= len(mesh.vertices):
        raise ValueError(BAD_FACES)
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = np.asarray(mesh.vertices, np.float64)[used], faces.reshape(-1, 3)
    if not (np.abs(vertices) < 1e30).all():
        raise ValueError(NOT_FINITE)
    size = np.ptp(vertices, axis=0).max()
    solid = np.linalg.norm(_crosses(vertices, faces), axis=1) > 1e-12 * size**2
    if not solid.any():
        raise ValueError(FLAT)
    used, faces = np.unique(faces[solid], return_inverse=True)
    vertices = vertices[used]
    vertices -= (vertices.min(0) + vertices.max(0)) / 2
    vertices /= np.linalg.norm(vertices, axis=1).max()
    return Mesh(
        vertices.astype(np.float32),
        faces.reshape(-1, 3).astype(np.int32),
        np.asarray(mesh.colours, np.uint8)[solid],
    )


def normals(mesh: Mesh) -> Points:
    """The unit normal of each face (F, 3); 0 where a face has no area."""
    crosses = _crosses(mesh.vertices.astype(np.float64), mesh.faces)
    return crosses / np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-300)


def _crosses(vertices: Points, faces: NDArray) -> Points:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def solid(bottom: ArrayLike, top: ArrayLike, colour: Colour) -> Mesh:
    """Two convex polygons (K, 3), counter-clockwise seen from the top, and the band between."""
    low, high = np.asarray(bottom, np.float32), np.asarray(top, np.float32)
    k = len(low)
    here, there = np.arange(k), (np.arange(k) + 1) % k
    fan = np.arange(1, k - 1)
    first = np.zeros_like(fan)
    faces = np.concatenate(
        [
            np.stack([here, there, there + k], 1),
            np.stack([here, there + k, here + k], 1),
            np.stack([first, fan + 1, fan], 1),
            np.stack([first, fan, fan + 1], 1) + k,
        ]
    ).astype(np.int32)
    return Mesh(np.concatenate([low, high]), faces, np.full((len(faces), 3), colour, np.uint8))


def box(low: Sequence[float], high: Sequence[float], colour: Colour) -> Mesh:
    """The box between two opposite corners (x, y, z), each the smaller and the larger one."""
    (a, b, c), (d, e, f) = low, high
    ring = ((a, b), (d, b), (d, e), (a, e))
    return solid([(x, y, c) for x, y in ring], [(x, y, f) for x, y in ring], colour)


def tube(
    start: ArrayLike, stop: ArrayLike, radii: tuple[float, float], colour: Colour, sides: int = 8
) -> Mesh:
    """A round bar, or a piece of a cone, from one point to another with a radius at each."""
    a, b = np.asarray(start, float), np.asarray(stop, float)
    axis = (b - a) / np.linalg.norm(b - a)
    # Any direction that is not along the axis will do to begin the two that lie across it.
    across = np.cross(axis, (0.0, 0.0, 1.0) if abs(axis[2]) < 0.9 else (1.0, 0.0, 0.0))
    across /= np.linalg.norm(across)
    angles = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    ring = np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * np.cross(axis, across)
    return solid(a + radii[0] * ring, b + radii[1] * ring, colour)
