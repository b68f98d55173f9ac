"""Visual hulls of solids whose silhouettes are known by formula."""

import math

import pytest
import torch

from shala_lite import metrics
from shala_lite.runs import check_metric
from shala_lite.visual_hull import (
    carve,
    hull_iou,
    hull_scores,
    lattice,
    overlap,
    pixels_per_unit,
    seen_by_others,
)

DISTANCE, ELEVATION = 3.0, math.radians(20)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def cameras_around(views, side, zoom=1.0):
    """Cameras (M, 3, 4) in a circle, which look at the origin; at zoom 1 the unit ball fits."""
    focal = zoom * side / 2 / math.tan(math.asin(1 / DISTANCE))
    inner = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]]).double()
    found = []
    for azimuth in torch.arange(views, dtype=torch.float64) * 2 * math.pi / views:
        flat = math.cos(ELEVATION)
        ahead = -torch.stack(
            [flat * azimuth.cos(), flat * azimuth.sin(), torch.tensor(math.sin(ELEVATION)).double()]
        )
        right = torch.linalg.cross(ahead, torch.tensor([0.0, 0, 1]).double())
        right = right / right.norm()
        turn = torch.stack([right, torch.linalg.cross(ahead, right), ahead])
        # The eye is at -DISTANCE ahead, which the turn maps to (0, 0, DISTANCE).
        found.append(inner @ torch.cat([turn, torch.tensor([[0], [0], [DISTANCE]])], 1))
    return torch.stack(found)


def rays(cameras, side):
    """Eyes (M, 3), and unit directions (M, H, W, 3) through the centres of the pixels."""
    turn = cameras[:, :, :3].inverse()
    eyes = -(turn @ cameras[:, :, 3:])[..., 0]
    centre = torch.arange(side, dtype=torch.float64) + 0.5
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    ways = torch.stack([u, v, torch.ones_like(u)], -1) @ turn.mT[:, None]
    return eyes, ways / ways.norm(dim=-1, keepdim=True)


def sphere(cameras, side, centre, radius):
    """Silhouettes (M, H, W) bool: rays that pass the centre within the radius."""
    eyes, ways = rays(cameras, side)
    to = torch.tensor(centre).double() - eyes
    along = (ways * to[:, None, None]).sum(-1)
    return to.square().sum(-1)[:, None, None] - along**2 <= radius**2


def box(cameras, side, half):
    """Silhouettes (M, H, W) bool of a box about the origin: rays that meet all slabs at once."""
    eyes, ways = rays(cameras, side)
    ends = [(sign * torch.tensor(half).double() - eyes[:, None, None]) / ways for sign in (-1, 1)]
    return torch.minimum(*ends).amax(-1) <= torch.maximum(*ends).amin(-1)


def two_lobes(cameras, side):
    return sphere(cameras, side, (0.4, 0.1, -0.2), 0.3) | sphere(cameras, side, (-0.3, 0, 0.3), 0.4)


def some_spheres(cameras, side, count, seed=0):
    """Silhouettes (count, M, H, W) of spheres of several sizes at several places."""
    draw = torch.rand(count, 4, generator=rng(seed)).tolist()
    return torch.stack(
        [sphere(cameras, side, (x - 0.5, y - 0.5, z - 0.5), 0.2 + 0.2 * r) for x, y, z, r in draw]
    )


def pixel_length(side):
    """How long a pixel is at the far side of the unit ball."""
    return (DISTANCE + 1) * math.tan(math.asin(1 / DISTANCE)) * 2 / side


def test_pixels_per_unit_is_how_far_the_image_of_the_origin_moves():
    cameras = cameras_around(3, 32, zoom=1.3)
    cameras[1, :2] += torch.tensor([5.0, -7.0])[:, None] * cameras[1, 2:]  # moves the picture
    steps = 1e-5 * torch.nn.functional.normalize(torch.randn(4000, 3, generator=rng()).double())
    images = torch.cat([torch.zeros(1, 3).double(), steps]) @ cameras[..., :3].mT
    images = images + cameras[:, None, :, 3]
    images = images[..., :2] / images[..., 2:]
    moved = (images[:, 1:] - images[:, :1]).norm(dim=-1).max() / 1e-5
    assert pixels_per_unit(cameras) == pytest.approx(moved.item(), rel=1e-2)
    # Scale does not matter to a projective matrix.
    assert pixels_per_unit(7 * cameras) == pytest.approx(pixels_per_unit(cameras))


def test_the_lattice_is_of_voxel_centres_with_z_fastest():
    points = lattice(4)
    assert points.shape == (64, 3)
    assert points[:2].tolist() == [[-0.75, -0.75, -0.75], [-0.75, -0.75, -0.25]]
    assert points.unflatten(0, (4, 4, 4))[3, 0, 1].tolist() == [0.75, -0.75, -0.25]


def test_the_hull_of_a_sphere_contains_it_and_is_not_much_larger():
    side, centre, radius = 48, (0.2, -0.1, 0.1), 0.5
    cameras = cameras_around(12, side)
    kept = carve(sphere(cameras, side, centre, radius)[None], cameras, 40)[0]
    away = (lattice(40) - torch.tensor(centre).double()).norm(dim=1).view(40, 40, 40)
    # A voxel half a pixel's diagonal from the rim falls in a pixel whose centre is inside.
    slack = pixel_length(side) * math.sqrt(0.5)
    assert kept[away < radius - slack].all()
    # Between the poles, which no camera sees from the side, the hull hugs the sphere.
    level = abs(lattice(40)[:, 2].view(40, 40, 40) - centre[2]) < 0.1
    assert not kept[level & (away > radius * 1.06 + slack)].any()


def test_hulls_only_shrink_as_views_are_added():
    cameras = cameras_around(8, 24)
    shapes = torch.stack([two_lobes(cameras, 24), box(cameras, 24, (0.5, 0.2, 0.4))])
    before = carve(shapes[:, :1], cameras[:1], 24)
    for views in range(2, 9):
        after = carve(shapes[:, :views], cameras[:views], 24)
        assert not (after & ~before).any()
        before = after
    first = carve(shapes[:, :1], cameras[:1], 24)
    assert (before.sum((1, 2, 3)) < 0.7 * first.sum((1, 2, 3))).all()


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_a_solid_leaves_no_holes(zoom):
    # All is inside everywhere: what is seen is the unit ball, as far as the picture goes.
    side = 24
    cameras = cameras_around(4, side, zoom)
    seen = seen_by_others(torch.ones(1, 4, side, side, dtype=torch.bool), cameras)[0]
    slack = pixel_length(side) / zoom
    if zoom == 1:
        assert seen[sphere(cameras, side, (0.0, 0.0, 0.0), 1 - slack)].all()
        assert not seen[~sphere(cameras, side, (0.0, 0.0, 0.0), 1 + slack)].any()
    else:
        # Each view is cut at its edges, and so is the hull of the others; its middle is whole.
        assert seen[sphere(cameras, side, (0.0, 0.0, 0.0), 0.5 - slack)].all()


def test_the_hull_of_a_real_solid_covers_its_own_silhouettes():
    side = 40
    cameras = cameras_around(8, side)
    ball = sphere(cameras, side, (0.1, 0.2, 0.0), 0.5)
    shapes = torch.stack([ball, box(cameras, side, (0.5, 0.3, 0.4)), two_lobes(cameras, side)])
    # Only pixels at the rim may be lost. A disc of ten pixels' radius has a fifth of its pixels
    # there, and at most one in ten of these is lost.
    assert hull_iou(shapes, cameras).min() > 0.98
    # A sphere that is smaller by the diagonal of a pixel is in every pixel that it touches.
    seen = seen_by_others(ball[None], cameras)[0]
    slack = pixel_length(side) * math.sqrt(2)
    assert seen[sphere(cameras, side, (0.1, 0.2, 0.0), 0.5 - slack)].all()
    # What other views leave possible is larger, by less than one pixel all round: a fifth.
    left_out = hull_iou(shapes, cameras, left_out=True)
    assert (left_out > 0.8).all()
    assert (left_out < hull_iou(shapes, cameras)).all()


def test_bits_say_what_carving_one_view_at_a_time_says():
    side, resolution = 10, 14
    cameras = cameras_around(3, side, zoom=1.5)  # some points are in no pixel
    # More objects than bits; noise, so that nothing is smooth.
    shapes = torch.rand(67, 3, side, side, generator=rng()) < 0.6
    seen = seen_by_others(shapes, cameras, resolution)
    points = lattice(resolution)
    for view in range(3):
        others = [k for k in range(3) if k != view]
        kept = carve(shapes[:, others], cameras[others], resolution).flatten(1)
        image = points @ cameras[view, :, :3].T + cameras[view, :, 3]
        column, row = (image[:, :2] / image[:, 2:]).floor().long().T
        expected = torch.zeros(67, side, side, dtype=torch.bool)
        shown = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        for item in range(67):
            at = kept[item] & shown
            expected[item, row[at], column[at]] = True
        assert seen[:, view].equal(expected)


def test_the_order_of_views_and_of_objects_does_not_matter():
    cameras = cameras_around(6, 20)
    shapes = some_spheres(cameras, 20, 9).roll(1, 0)
    shapes[:, 2] = shapes[:, 2].roll(1, 0)  # sets that contradict themselves
    order = torch.randperm(6, generator=rng())
    for left_out in (False, True):
        iou = hull_iou(shapes, cameras, left_out=left_out)
        mixed = hull_iou(shapes[:, order], cameras[order], left_out=left_out)
        assert torch.allclose(iou, mixed)
        assert torch.allclose(iou.flip(0), hull_iou(shapes.flip(0), cameras, left_out=left_out))


def test_one_view_of_another_object_lowers_the_score_and_all_of_them_lower_it_more():
    cameras = cameras_around(8, 24)
    shapes = some_spheres(cameras, 24, 20)
    one, all_ = shapes.clone(), shapes.clone()
    one[:, 3] = shapes[:, 3].roll(1, 0)
    for view in range(8):
        all_[:, view] = shapes[:, view].roll(view, 0)
    for left_out in (False, True):
        right, odd, wrong = (
            hull_iou(x, cameras, left_out=left_out).mean() for x in (shapes, one, all_)
        )
        assert right > odd + 0.1
        assert odd > wrong + 0.1


def test_what_is_empty_scores_nothing():
    cameras = cameras_around(4, 16)
    ball = sphere(cameras, 16, (0.0, 0.0, 0.0), 0.5)
    gap = ball.clone()
    gap[1] = False  # one empty view leaves no hull
    apart = sphere(cameras, 16, (0.0, 0.0, 0.6), 0.2)
    apart[::2] = sphere(cameras, 16, (0.0, 0.0, -0.6), 0.2)[::2]
    shapes = torch.stack([torch.zeros_like(ball), gap, apart, ball])
    for left_out in (False, True):
        iou = hull_iou(shapes, cameras, left_out=left_out)
        assert iou[:3].tolist() == [0, 0, 0]
        assert iou[3] > 0.6
    assert not carve(shapes[:3], cameras).flatten(1).any()
    assert hull_iou(shapes[:0], cameras).shape == (0,)


def test_overlap_is_intersection_over_union_of_each_view():
    a = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    b = a.clone()
    a[0, 0, 0], b[0, 0, :, 0] = True, True  # one pixel of three
    a[0, 1, 0, 0], b[0, 1, 0, 0] = True, True
    assert overlap(a, b).item() == pytest.approx((1 / 3 + 1) / 2)


def test_scores_are_one_for_real_sets_and_nothing_for_shuffled_ones():
    cameras = cameras_around(8, 20)
    real, others = (some_spheres(cameras, 20, 40, seed) for seed in (1, 2))
    categories = torch.arange(40) % 2
    at = torch.arange(8)
    mixed = others[(torch.arange(40)[:, None] + at) % 40, at]
    blob = sphere(cameras, 20, (0.0, 0.0, 0.0), 0.5)[None].repeat(5, 1, 1, 1)
    generated = {"same": real, "new": others, "mixed": mixed, "blob": blob}
    scores = hull_scores(generated, real, categories, cameras, rng())
    for name in scores:
        check_metric(name, metrics.KEYS)
    for part in ("", "@left_out"):
        assert scores[f"same/hull_score{part}"] == pytest.approx(1)
        assert scores[f"new/hull_score{part}"] == pytest.approx(1, abs=0.1)
        assert scores[f"mixed/hull_score{part}"] == pytest.approx(0, abs=0.15)
        # A ball in all views is a solid: why other numbers stand beside this one.
        assert scores[f"blob/hull_score{part}"] > 0.9
        assert scores[f"judge/hull_iou{part}"] > scores[f"floor/hull_iou{part}"] + 0.3
    assert scores["same/silhouette_area"] == pytest.approx(real.double().mean().item())
    # Shuffling moves views and changes none of them.
    assert scores["floor/silhouette_area"] == pytest.approx(scores["judge/silhouette_area"])
    assert hull_scores(generated, real, categories, cameras, rng()) == scores


def test_the_floor_shuffles_within_a_category():
    cameras = cameras_around(6, 16)
    kinds = torch.stack([box(cameras, 16, (0.5, 0.2, 0.2)), two_lobes(cameras, 16)])
    real, categories = kinds.repeat(4, 1, 1, 1), torch.tensor([0, 1]).repeat(4)
    # All objects of a category are alike, so shuffled sets are real ones.
    with pytest.raises(ValueError, match="expected more than"):
        hull_scores({}, real, categories, cameras, rng())
    scores = hull_scores({}, real, torch.zeros_like(categories), cameras, rng())
    assert scores["judge/hull_iou"] > scores["floor/hull_iou"]


def test_an_object_alone_in_its_category_takes_no_part_in_the_floor():
    cameras = cameras_around(6, 16)
    real = some_spheres(cameras, 16, 9)
    categories = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2])
    scores = hull_scores({}, real, categories, cameras, rng())
    without = hull_scores({}, real[:8], categories[:8], cameras, rng())
    for key in ("hull_iou", "hull_iou@left_out", "silhouette_area"):
        assert scores[f"floor/{key}"] == pytest.approx(without[f"floor/{key}"])


def test_refuses_what_does_not_fit():
    cameras = cameras_around(4, 16)
    shapes = some_spheres(cameras, 16, 6)
    with pytest.raises(ValueError, match=r"silhouettes: .*float32, expected \(B, M, H, W\)"):
        hull_iou(shapes.float(), cameras)
    with pytest.raises(ValueError, match=r"cameras: \(3, 3, 4\), expected \(4, 3, 4\)"):
        carve(shapes, cameras[:3])
    for bad in (torch.full_like(cameras, torch.nan), -cameras):
        with pytest.raises(ValueError, match="not finite or behind the origin"):
            hull_iou(shapes, bad)
    with pytest.raises(ValueError, match="silhouettes: 1 views, expected at least two"):
        hull_iou(shapes[:, :1], cameras[:1])
    with pytest.raises(ValueError, match="resolution: 1, expected at least 2"):
        carve(shapes, cameras, 1)
    categories = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"categories: \(5,\), expected \(6,\)"):
        hull_scores({}, shapes, categories[1:], cameras, rng())
    for odd in (shapes[:, :, 1:], shapes[:0]):
        with pytest.raises(ValueError, match=r"generated\['prior'\]: "):
            hull_scores({"prior": odd}, shapes, categories, cameras, rng())
    with pytest.raises(ValueError, match="expected other names than judge, floor"):
        hull_scores({"floor": shapes}, shapes, categories, cameras, rng())
    with pytest.raises(ValueError, match="categories: each has one object"):
        hull_scores({}, shapes, torch.arange(6), cameras, rng())
