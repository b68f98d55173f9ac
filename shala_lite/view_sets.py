"""Sets of views: M pictures of one object, from M sides.

A picture has its colour over white in three channels and alpha, how much of a pixel the object
covers, in the fourth. The silhouette is where alpha is above one half.

The floor of every score of such sets is what it gives for sets that do not belong together: views
of real objects, each of another one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .datasets import MultimodalDataset
from .judge_nets import readable

COVERED = 0.5  # alpha above which a pixel belongs to the silhouette


def check_views(views: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """The one shape (B, C, H, W) that all views {name: pictures} have.

    Raises:
        ValueError: fewer than two views, shapes that differ, or a number that is not finite.
    """
    shapes = {name: tuple(x.shape) for name, x in views.items()}
    if len(views) < 2 or len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 4:
        raise ValueError(f"views: {shapes}, expected at least two of one shape (B, C, H, W)")
    for name, x in views.items():
        if x.is_floating_point() and not x.isfinite().all():
            raise ValueError(f"views[{name!r}]: not finite, expected pixels in [0, 1]")
    return next(iter(shapes.values()))  # type: ignore[return-value]


def views_of(dataset: MultimodalDataset) -> tuple[dict[str, Tensor], Tensor]:
    """The views {name: (N, C, H, W)} of a data set, its images, and which are present, (N, M).

    Raises:
        ValueError: as `check_views`.
    """
    columns = [at for at, m in enumerate(dataset.modalities) if m.kind == "image"]
    names = [dataset.modalities[at].name for at in columns]
    views = {name: dataset.observations[name] for name in names}
    check_views(views)
    return views, dataset.present[:, columns]


def silhouettes(views: Mapping[str, Tensor]) -> Tensor:
    """Where the object is in each view, (B, M, H, W) bool, views in their order.

    Args:
        views: {name: (B, 4, H, W)}, uint8 or in [0, 1].

    Raises:
        ValueError: pictures without alpha, or as `check_views`.
    """
    shape = check_views(views)
    if shape[1] != 4:
        raise ValueError(f"views: {shape[1]} channels, expected 4, of which the last is alpha")
    return torch.stack([readable(x[:, 3]) > COVERED for x in views.values()], 1)


def shuffled(groups: Tensor, views: int, generator: torch.Generator) -> Tensor:
    """Sets whose views are each of another object of one group: the positions (N, M) int64.

    Set n shows in view m what object `positions[n, m]` shows there; `x[positions, arange(M)]` are
    the sets of observations x (N, M, ...). The objects of a group are laid in a circle at random,
    and each set takes M neighbours. So every view of every object is used once, and no object
    comes twice in a set of at most as many views as the group has objects.

    Args:
        groups: (N,) int64, such as the category of each object.
        views: M.
        generator: lays the circles, on the CPU.

    Raises:
        ValueError: a group of one object, which has no other.
    """
    positions = torch.empty(len(groups), views, dtype=torch.int64)
    for group in groups.unique().tolist():
        members = (groups == group).nonzero()[:, 0].cpu()
        count = len(members)
        if count < 2:
            raise ValueError(f"groups: one object in group {group}, expected at least two")
        circle = members[torch.randperm(count, generator=generator)]
        neighbours = torch.arange(count)[:, None] + torch.arange(views)
        positions[circle] = circle[neighbours % count]
    return positions.to(groups.device)
