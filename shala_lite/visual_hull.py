r"""Could one solid have cast all these silhouettes? The visual hull, and how well it fits them.

The visual hull of silhouettes S_1, ..., S_M is the largest solid within all of them (Laurentini
1994). Seen again from camera k, it covers S_k if some solid agrees with every view, and less of it
the more the views contradict each other:

    hull     = { X in the unit ball : pi_m(X) in S_m for all m },    pi_m(X) = (u, v) = P_m (X, 1)
    hull IoU = mean over k of |R_k & S_k| / |R_k | S_k|,             R_k = pi_k(hull)

R_k lies within S_k by construction. The stricter form leaves view k out of the hull that it is
compared with. Such a hull may be larger than the object, and a pixel counts once it is touched, so
real sets stay below 1 too.

The hull is a lattice of points, half a pixel apart where the origin is seen. Each point asks the
pixel that it falls in, in every view, and a pixel of R_k is covered if a point of the hull falls
in it. Points are closer than pixels, so a solid leaves no holes. The other way, to look for a point
of the hull along the ray of every pixel, asks M times as many questions: each ray has points of
its own, and here all views share them. Pixels at the rim are where it errs: a point of the object
within a pixel's half diagonal of the rim may fall in a pixel whose centre misses the object.

A silhouette is cut off at the edge of the picture: an object is in view whole. A round blob in all
views is a solid, so a high score says that views agree, and not that the object is any good.

What is asked of one object is a bit, and 64 objects are asked at once, in the bits of an int64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from .metrics import rescaled
from .view_sets import shuffled

BITS = 64  # objects at once
SPACING = 0.5  # pixels between points of the hull, where the origin is seen


def _check(silhouettes: Tensor, cameras: Tensor) -> None:
    if silhouettes.ndim != 4 or silhouettes.dtype != torch.bool:
        raise ValueError(
            f"silhouettes: {tuple(silhouettes.shape)} {silhouettes.dtype}, "
            "expected (B, M, H, W) torch.bool"
        )
    if tuple(cameras.shape) != (silhouettes.shape[1], 3, 4):
        raise ValueError(
            f"cameras: {tuple(cameras.shape)}, expected {(silhouettes.shape[1], 3, 4)}, "
            "one for each view of the silhouettes"
        )
    if not cameras.isfinite().all() or (cameras[:, 2, 3] <= 0).any():
        raise ValueError("cameras: not finite or behind the origin, expected it in front of all")


def pixels_per_unit(cameras: Tensor) -> float:
    """How many pixels a unit of length at the origin takes at most, in cameras (M, 3, 4)."""
    scale = cameras[:, 2:, 3:]
    origin = cameras[:, :2, 3:] / scale  # (u, v) of the origin; below, how it moves with X
    motion = (cameras[:, :2, :3] - origin * cameras[:, 2:, :3]) / scale
    return torch.linalg.matrix_norm(motion.double(), 2).max().item()


def lattice(resolution: int, device: torch.device | None = None) -> Tensor:
    """Centres of the voxels of the cube [-1, 1]^3, (R^3, 3) float64; x is slowest, z fastest."""
    if resolution < 2:
        raise ValueError(f"resolution: {resolution}, expected at least 2")
    centres = (torch.arange(resolution, dtype=torch.float64, device=device) + 0.5) / resolution
    return torch.cartesian_prod(*[centres * 2 - 1] * 3)


def _pixels(points: Tensor, camera: Tensor, height: int, width: int) -> Tensor:
    """The pixel that each point falls in, row by row, (N,) int64; H W where it is in none."""
    camera = camera.to(points)
    u, v, w = (points @ camera[:, :3].T + camera[:, 3]).unbind(-1)
    column, row = (u / w).floor(), (v / w).floor()
    within = (w > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return torch.where(within, row * width + column, height * width).long()


def carve(silhouettes: Tensor, cameras: Tensor, resolution: int = 48) -> Tensor:
    """The voxels of the visual hull, (B, R, R, R) bool, along x, y and z.

    A voxel of the cube [-1, 1]^3 is kept if its centre is in the unit ball and falls in a pixel of
    the silhouette in every view.

    Args:
        silhouettes: (B, M, H, W) bool.
        cameras: (M, 3, 4), projective matrices from (x, y, z, 1) to w (u, v, 1), in pixels.
        resolution: R.

    Raises:
        ValueError: another shape or type, or a camera that does not see the origin.
    """
    _check(silhouettes, cameras)
    height, width = silhouettes.shape[2:]
    points = lattice(resolution, silhouettes.device)
    kept = (points.norm(dim=1) <= 1).repeat(len(silhouettes), 1)
    inside = functional.pad(silhouettes.flatten(2), (0, 1))  # beside the picture there is nothing
    for view, camera in enumerate(cameras):
        kept &= inside[:, view].index_select(1, _pixels(points, camera, height, width))
    return kept.unflatten(1, (resolution,) * 3)


def _by_pixel(pixels: Tensor, count: int) -> Tensor:
    """The points in each of `count` pixels, (count, L) int64, filled up with the number of points.

    Args:
        pixels: (N,), the pixel of each point; `count` where it is in none.
    """
    order, sizes = pixels.argsort(), pixels.bincount(minlength=count + 1)
    start, sizes = (sizes.cumsum(0) - sizes)[:-1, None], sizes[:-1, None]
    place = torch.arange(max(1, int(sizes.max())), device=pixels.device)
    points = order[(start + place).clamp(max=len(order) - 1)]
    return torch.where(place < sizes, points, len(order))


def seen_by_others(silhouettes: Tensor, cameras: Tensor, resolution: int | None = None) -> Tensor:
    """For each view the hull of all other views as it is seen there, (B, M, H, W) bool.

    Cut to the silhouette of the view itself, it is the reprojection of the hull of all views.

    Args:
        silhouettes, cameras: as in `carve`; at least two views.
        resolution: points along each side of the cube; None puts them half a pixel apart. Memory
            grows with its cube, and not with B.

    Raises:
        ValueError: as `carve`, or fewer than two views.
    """
    _check(silhouettes, cameras)
    count, views, height, width = silhouettes.shape
    if views < 2:
        raise ValueError(f"silhouettes: {views} views, expected at least two")
    if resolution is None:
        resolution = max(2, math.ceil(2 / SPACING * pixels_per_unit(cameras)))
    points = lattice(resolution, silhouettes.device)
    points = points[points.norm(dim=1) <= 1]
    pixels = [_pixels(points, camera, height, width) for camera in cameras]
    tables = [_by_pixel(pixel, height * width) for pixel in pixels]
    found = [_chunk_seen(chunk, pixels, tables) for chunk in silhouettes.split(BITS)]
    return torch.cat(found) if count else silhouettes.clone()


def _chunk_seen(silhouettes: Tensor, pixels: list[Tensor], tables: list[Tensor]) -> Tensor:
    """`seen_by_others` of at most 64 objects, one in each bit."""
    bits = torch.arange(len(silhouettes), device=silhouettes.device)[:, None, None]
    inside = (silhouettes.flatten(2).long() << bits).sum(0)  # (M, H W); the bits do not overlap
    outside = functional.pad(~inside, (0, 1), value=-1)  # beside the picture is outside for all
    once = torch.zeros_like(pixels[0])  # for whom a point is outside in at least one view
    twice = torch.zeros_like(once)  # and in at least two
    for view, pixel in enumerate(pixels):
        missed = outside[view][pixel]
        twice |= once & missed
        once |= missed
    covered = torch.empty_like(inside)
    for view, (pixel, table) in enumerate(zip(pixels, tables, strict=True)):
        kept = ~once | (~twice & outside[view][pixel])  # outside in no view but this
        layers = functional.pad(kept, (0, 1))[table]  # (H W, L); the filling is in no hull
        depth = layers.shape[1]
        while depth > 1:  # what is kept by any point of the pixel, by halves
            half = (depth + 1) // 2
            layers[:, : depth - half] |= layers[:, half:depth]
            depth = half
        covered[view] = layers[:, 0]
    return (covered >> bits & 1).bool().view(silhouettes.shape)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of regions (B, M, H, W) bool, mean over views, (B,) float64.

    Where both are empty it is 0.
    """
    common, either = (part.flatten(2).sum(2).double() for part in (a & b, a | b))
    return (common / either.clamp(min=1)).mean(1)


def hull_iou(
    silhouettes: Tensor,
    cameras: Tensor,
    *,
    left_out: bool = False,
    resolution: int | None = None,
) -> Tensor:
    """How well the hull of each set fits its silhouettes, (B,) float64 in [0, 1].

    A set whose silhouettes are all empty, or whose hull is, scores 0.

    Args:
        silhouettes, cameras, resolution: as in `seen_by_others`.
        left_out: compare each silhouette with the hull of all other views.
    """
    seen = seen_by_others(silhouettes, cameras, resolution)
    return overlap(seen if left_out else seen & silhouettes, silhouettes)


def hull_scores(
    generated: Mapping[str, Tensor],
    real: Tensor,
    categories: Tensor,
    cameras: Tensor,
    generator: torch.Generator,
) -> dict[str, float]:
    """Scores {variant/key} of generated sets, beside those of real ones.

    Keys: hull_iou and hull_iou@left_out; hull_score and hull_score@left_out, 0 at the floor and 1
    at the ceiling; silhouette_area, the mean share of pixels that silhouettes fill. `judge` are
    real sets, the ceiling. `floor` are sets whose views are each of another real object of one
    category; an object alone in its category is left out there.

    Args:
        generated: {variant: (B, M, H, W) bool}.
        real: (N, M, H, W) bool.
        categories: (N,) int64, those of the real objects.
        cameras: (M, 3, 4), as in `carve`.
        generator: shuffles, on the CPU.

    Raises:
        ValueError: as `seen_by_others`; no sets; no category of two objects; a variant named
            `judge` or `floor`; or a ceiling that is not above the floor.
    """
    if {"judge", "floor"} & set(generated):
        raise ValueError(f"generated: {list(generated)}, expected other names than judge, floor")
    _check(real, cameras)
    if tuple(categories.shape) != (len(real),):
        raise ValueError(f"categories: {tuple(categories.shape)}, expected {(len(real),)}")
    several = categories.bincount()[categories] > 1
    if not several.any():
        raise ValueError("categories: each has one object, expected one with two or more")
    positions = shuffled(categories[several], real.shape[1], generator).to(real.device)
    views = torch.arange(real.shape[1], device=real.device)
    floor = real[several.to(real.device)][positions, views]
    sets = {**generated, "judge": real, "floor": floor}
    for variant, shapes in sets.items():
        if shapes.shape[1:] != real.shape[1:] or not len(shapes):
            raise ValueError(
                f"generated[{variant!r}]: {tuple(shapes.shape)}, expected some of "
                f"{tuple(real.shape[1:])}, the shape of real sets"
            )
    everything = torch.cat([shapes.to(real.device) for shapes in sets.values()])
    seen = seen_by_others(everything, cameras)
    found: dict[str, dict[str, float]] = {variant: {} for variant in sets}
    for part, region in (("", seen & everything), ("@left_out", seen)):
        parts = overlap(region, everything).split([len(shapes) for shapes in sets.values()])
        iou = {variant: own.mean().item() for variant, own in zip(sets, parts, strict=True)}
        if not iou["judge"] > iou["floor"]:
            raise ValueError(
                f"real: hull_iou{part} {iou['judge']:.4f}, expected more than the "
                f"{iou['floor']:.4f} of views shuffled across objects"
            )
        for variant, value in iou.items():
            found[variant][f"hull_iou{part}"] = value
            if variant in generated:
                score = rescaled(value, floor=iou["floor"], ceiling=iou["judge"])
                found[variant][f"hull_score{part}"] = score
    for variant, shapes in sets.items():
        found[variant]["silhouette_area"] = shapes.double().mean().item()
    return {f"{name}/{key}": value for name, own in found.items() for key, value in own.items()}
