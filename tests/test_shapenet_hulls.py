"""Hulls of rendered objects: seen again by their own cameras they are their silhouettes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from shala_lite.datasets import load_dataset, shapenet
from shala_lite.view_sets import silhouettes
from shala_lite.visual_hull import hull_iou

# The share of the pixels at the rim that may be lost. Points of the hull are half a pixel apart, so
# about 8 c d of them fall into a pixel of which an object d pixels deep covers the share c. Where
# any c > 0 counts, a pixel without a point has c < 1 / 8 d, which is true of one pixel at the rim
# in 8 d: one in 20 where parts are 2.5 pixels deep. Where only c > 1/2 counts, parts that are thin
# in one view are missing there, and so are carved away in all views: twice as many.
TOUCHED, HALF = 1 / 20, 1 / 10


def rim(shapes):
    """Pixels of silhouettes (B, M, H, W) with a neighbour outside, of the eight there are."""
    around = functional.max_pool2d((~functional.pad(shapes, (1, 1, 1, 1))).double(), 3, 1)
    return shapes & around.bool()


@pytest.fixture(scope="module")
def rendered():
    """Eight objects, two of each category, in all views, and the cameras (M, 3, 4)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shala_lite.datasets.shards.cached", lambda path, shape, rows: stacked(rows))
        data = load_dataset("shapenet", "test", size=8)
    assert data.labels.bincount().tolist() == [2] * 4
    rig = shapenet.rig_of("embedded", Path())
    return data.observations, torch.from_numpy(rig.matrices())


def stacked(rows):
    return np.stack(list(rows()))


def shapes_of(views, kind):
    if kind == "half":
        return silhouettes(views)
    return torch.stack([x[:, 3] > 0 for x in views.values()], 1)


@pytest.mark.parametrize(("kind", "share"), [("touched", TOUCHED), ("half", HALF)])
def test_the_hull_of_a_rendered_object_covers_its_silhouettes_but_for_some_of_the_rim(
    rendered, kind, share
):
    views, cameras = rendered
    shapes = shapes_of(views, kind)
    area, edge = shapes.flatten(2).sum(2), rim(shapes).flatten(2).sum(2)
    at_rim = (edge / area).mean(1)  # of the pixels of each object
    lost = 1 - hull_iou(shapes, cameras)
    assert (lost < 2 * share * at_rim).all()
    assert lost.mean() < share * at_rim.mean()
    # One camera that stands one step further, whichever it is, breaks the bound.
    for view in range(0, len(cameras), 3):
        off = cameras.clone()
        off[view] = cameras[(view + 1) % len(cameras)]
        assert (1 - hull_iou(shapes, off)).mean() > share * at_rim.mean()


def test_thin_parts_vanish_where_only_pixels_that_are_covered_by_half_count(rendered):
    views, cameras = rendered
    touched, half = (shapes_of(views, kind) for kind in ("touched", "half"))
    assert not (half & ~touched).any()
    assert hull_iou(half, cameras).mean() < hull_iou(touched, cameras).mean()


def test_cameras_that_go_round_the_other_way_do_not_fit(rendered):
    views, cameras = rendered
    assert (hull_iou(shapes_of(views, "touched"), cameras.flip(0)) < 0.9).all()
