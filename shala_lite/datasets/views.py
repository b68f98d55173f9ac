"""Pictures of a mesh from all around, with the silhouette as a fourth channel.

Each pixel is the mean of ``fine`` x ``fine`` rays, and each ray has the colour of the first face
that it meets, or that of the white ground, with alpha 255 or 0:

    shade = ambient + (1 - ambient) max(0, n . l)

n is the normal of the face, on the side that is seen, and l the direction towards a light that is
fixed to the camera, a little above it and to its left: with the light in the camera itself, two
faces that meet at a corner could look the same. There are no shadows.

Rays are cast by Embree, all rays of as many views as fit into one call. Sums are of integers, so
that the bytes do not depend on who renders, only on how Embree decides where a ray meets an edge.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray

from .cameras import Rig, rays
from .meshes import Mesh, normals

FINE = 4
LIGHT = (-0.35, -0.5, -0.8)  # towards the light: right, down and forward of the camera
AMBIENT = 0.5
WHITE = (255, 255, 255, 0)

_RAYS = 1 << 18  # in one call

Images = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


def render(mesh: Mesh, rig: Rig, fine: int = FINE) -> Images:
    """One mesh as all cameras see it.

    Args:
        mesh: in the unit sphere.
        rig: the M cameras.
        fine: a pixel is the mean of fine x fine rays; 1 to 16.

    Returns:
        (M, 4, side, side) uint8: red, green and blue over white, and alpha, the share of a pixel
        that the mesh covers.

    Raises:
        ImportError: where embreex is not installed.
        ValueError: ``fine`` out of range.
    """
    if not 1 <= fine <= 16:
        raise ValueError(f"fine: expected 1 to 16, got {fine}")
    scene, colours = _scene(mesh), _shaded(mesh, rig)
    at_once = max(1, _RAYS // (rig.side * fine) ** 2)
    pictures = np.empty((rig.views, rig.side, rig.side, 4), np.uint8)
    for start in range(0, rig.views, at_once):
        views = slice(start, min(start + at_once, rig.views))
        origins, directions = _rays(rig, fine, views.start, views.stop)
        faces = scene.run(origins, directions).reshape(fine**2, views.stop - start, -1)
        # A ray that meets nothing has the face -1: the last row, the ground.
        seen = np.stack(
            [colours[view][faces[:, view - start]] for view in range(start, views.stop)]
        )
        sums = seen.view(np.uint8).reshape(len(seen), fine**2, -1).sum(1, dtype=np.uint16)
        mean = (sums + fine**2 // 2) // fine**2
        pictures[views] = mean.reshape(-1, rig.side, rig.side, 4)
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


def ordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
) -> Generator[Result, None, None]:
    """``function`` of each item, in their order, computed in as many processes.

    Args:
        function: at the top of a module, so that other processes find it.
        items: what it is given.
        workers: how many processes. None: one for each core, or none but this one for fewer than
            500 items, as processes take long to start.

    Raises:
        ValueError: fewer than one.
        Exception: whatever ``function`` raises.
    """
    if workers is None:
        workers = cpu_count() if len(items) >= 500 else 1
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if workers == 1:
        yield from map(function, items)
        return
    # Unlike those of the standard library, these processes do not import the script that starts
    # them, so that it needs no guard.
    pool: Any = Parallel(
        workers, backend="loky", return_as="generator", max_nbytes=None, idle_worker_timeout=10
    )
    parent = os.getpid()
    results = pool(delayed(_work)(function, item, parent) for item in items)
    try:
        yield from results
    finally:
        results.close()


def _work(function: Callable[[Item], Result], item: Item, parent: int) -> Result:
    _end_with(parent)
    return function(item)


@cache
def _end_with(parent: int) -> None:
    """From now on this process ends when its parent does, even while it waits to be heard."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=8)
def _rays(rig: Rig, fine: int, start: int, stop: int) -> tuple[NDArray, NDArray]:
    """Origins and directions (fine^2 x views x side^2, 3) float32 of some views, in this order."""
    finer = Rig(rig.views, rig.elevation, rig.side * fine, rig.field_of_view)
    origins, directions = rays(finer.matrices()[start:stop], finer.side)
    views = stop - start
    split = directions.reshape(views, rig.side, fine, rig.side, fine, 3)
    split = split.transpose(2, 4, 0, 1, 3, 5).reshape(fine**2, views, -1, 3)
    spread = np.broadcast_to(origins[None, :, None], split.shape)
    flat = [np.ascontiguousarray(a.reshape(-1, 3), np.float32) for a in (spread, split)]
    return flat[0], flat[1]


def _scene(mesh: Mesh) -> Any:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        raise ImportError(
            f"embreex is needed to render views, and cannot be imported: {error}. "
            "Install it with pip; there are builds for Linux on x86-64, macOS and Windows"
        ) from error
    scene = EmbreeScene()
    TriangleMesh(
        scene=scene,
        vertices=np.ascontiguousarray(mesh.vertices, np.float32),
        indices=np.ascontiguousarray(mesh.faces, np.int32),
    )
    return scene


def _shaded(mesh: Mesh, rig: Rig) -> NDArray[np.uint32]:
    """What each view sees of each face, and last of the ground: (M, F + 1), four bytes in one."""
    normal = normals(mesh)
    light = np.array(LIGHT) / np.linalg.norm(LIGHT) @ rig.directions()  # (M, 3)
    corner = mesh.vertices[mesh.faces[:, 0]].astype(np.float64)
    # Which side of a face a camera is on is the same for all points of the face.
    side = np.sign(rig.places() @ normal.T - (corner * normal).sum(1))  # (M, F)
    shade = AMBIENT + (1 - AMBIENT) * np.maximum(0, side * (light @ normal.T))
    table = np.full((rig.views, len(normal) + 1, 4), 255, np.uint8)
    table[:, :-1, :3] = np.rint(mesh.colours * shade[:, :, None])
    table[:, -1] = WHITE
    return table.view(np.uint32)[:, :, 0]
