"""Pictures of meshes: laws of perspective, of rotation and of light, and the same bytes always."""

import math
import os
import select
import signal
import time

import numpy as np
import pytest
import trimesh

from shala_lite.datasets import objects, views
from shala_lite.datasets.cameras import Rig, project
from shala_lite.datasets.meshes import Mesh, box, fitted, join
from shala_lite.datasets.views import AMBIENT, FINE, ordered, render

STEP = 255 / FINE**2


def ball(radius, colour=(200, 100, 50)):
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    colours = np.full((len(sphere.faces), 3), colour, np.uint8)
    return Mesh(np.float32(sphere.vertices), np.int32(sphere.faces), colours)


def an_object(seed):
    rng = np.random.default_rng(seed)
    values = objects.deal(1, rng)
    return objects.build({k: int(v[0]) for k, v in values.items()}, rng.random(objects.NUISANCES))


def turned(mesh, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return mesh._replace(vertices=np.float32(mesh.vertices @ turn.T))


@pytest.mark.parametrize("rig", [Rig(3, 20.0, 32), Rig(5, -40.0, 21, 60.0)])
@pytest.mark.parametrize("radius", [0.35, 0.95])
def test_the_silhouette_of_a_sphere_is_a_disc_of_the_radius_that_perspective_says(rig, radius):
    views = render(ball(radius), rig)
    # The cone of rays that touch the sphere has the half angle arcsin(radius / distance).
    focal = rig.side / 2 / np.tan(np.deg2rad(rig.field_of_view) / 2)
    disc = focal * np.tan(np.arcsin(radius / rig.distance))
    centres = np.arange(rig.side) + 0.5 - rig.side / 2
    far = np.hypot(centres[:, None], centres[None])
    for alpha in views[:, 3]:
        assert (alpha[far < disc - 0.8] == 255).all()
        assert (alpha[far > disc + 0.8] == 0).all()
        assert alpha.sum() / 255 == pytest.approx(np.pi * disc**2, rel=0.02)


def test_a_small_ball_is_seen_where_the_camera_matrix_says():
    rig = Rig(6, 25.0, 48)
    place = np.array([0.4, -0.5, 0.3])
    small = ball(0.1)
    views = render(small._replace(vertices=small.vertices + np.float32(place)), rig)
    alpha = views[:, 3] / 255
    centres = np.arange(rig.side) + 0.5
    rows = (alpha.sum(2) * centres).sum(1) / alpha.sum((1, 2))
    columns = (alpha.sum(1) * centres).sum(1) / alpha.sum((1, 2))
    expected = project(rig.matrices(), place[None])[:, 0]
    assert np.allclose(np.stack([columns, rows], 1), expected, atol=0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_turning_the_object_by_one_step_turns_the_list_of_views(seed):
    rig, mesh = Rig(8), an_object(seed)
    views = render(mesh, rig).astype(int)
    after = render(turned(mesh, 360 / rig.views), rig).astype(int)
    difference = abs(after - np.roll(views, 1, 0))
    # Rays that graze an edge may fall to either side of it.
    assert (difference.max(1) > 1).mean() < 0.01
    assert difference[:, 3].max() <= 4 * STEP
    assert abs(after - views).mean() > 20 * difference.mean()


def test_a_quarter_of_the_views_is_the_list_of_a_smaller_rig():
    mesh = an_object(3)
    many, few = render(mesh, Rig(16)), render(mesh, Rig(4))
    assert (abs(many[::4].astype(int) - few).max(1) > 1).mean() < 0.01


def test_one_call_or_many_give_the_same_bytes(monkeypatch):
    mesh, rig = an_object(4), Rig(5, 20.0, 16)
    whole = render(mesh, rig)
    monkeypatch.setattr("shala_lite.datasets.views._RAYS", 1)
    assert np.array_equal(render(mesh, rig), whole)
    assert whole.shape == (5, 4, 16, 16)
    assert whole.dtype == np.uint8


def test_the_ground_is_white_and_edges_are_mixed_with_it():
    views = render(ball(0.6, colour=(0, 0, 0)), Rig(2)).astype(int)
    alpha = views[:, 3]
    assert set(np.unique(alpha)) > {0, 255}
    for colour in range(3):  # black over white: what is not covered is white
        assert abs(views[:, colour] - (255 - alpha)).max() <= 1


def test_faces_are_shaded_by_a_light_that_moves_with_the_camera():
    views = render(ball(0.9, colour=(200, 200, 200)), Rig(4, 20.0, 32)).astype(int)
    inside = views[:, 0][views[:, 3] == 255].reshape(4, -1)
    # Every view of a ball is the same, but for its facets, and as dark as the ambient light allows.
    assert abs(inside.astype(int) - inside[:1]).mean() < 4
    assert AMBIENT * 200 - 1 <= inside.min() < 0.75 * 200
    assert 0.97 * 200 < inside.max() <= 200
    # The light is above, to the left.
    left, right = views[:, 0, 8, 9], views[:, 0, 23, 22]
    assert (left > right + 30).all()


def test_two_faces_of_a_corner_never_look_the_same():
    cube = fitted(box((-1, -1, -1), (1, 1, 1), (200, 200, 200)))
    view = render(turned(cube, 45), Rig(1, 0.0, 32))[0].astype(int)
    left, right = view[0, 16, 10], view[0, 16, 21]
    assert left > right + 20


def test_faces_are_seen_from_both_sides_alike_and_the_nearer_hides_the_farther():
    sheet = Mesh(
        np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], np.float32) * 0.5,
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        np.array([[90, 180, 30]] * 2, np.uint8),
    )
    front, back = render(sheet, Rig(2, 0.0, 16))
    assert np.array_equal(front, back)
    flipped = render(sheet._replace(faces=sheet.faces[:, ::-1].copy()), Rig(2, 0.0, 16))
    assert np.array_equal(flipped[0], front)
    behind = sheet._replace(
        vertices=sheet.vertices * 0.5 - np.float32([0.2, 0, 0]),
        colours=np.array([[250, 0, 0]] * 2, np.uint8),
    )
    hidden, hiding = render(join([sheet, behind]), Rig(2, 0.0, 16))
    assert np.array_equal(hidden, front)
    assert hiding[0, 8, 8] > hiding[1, 8, 8]


def test_faces_without_an_area_are_not_seen():
    mesh = an_object(5)
    flat = np.array([[0, 0, 0], [1, 1, 2]], np.int32)
    odd = mesh._replace(
        faces=np.concatenate([mesh.faces, flat]),
        colours=np.concatenate([mesh.colours, np.zeros((2, 3), np.uint8)]),
    )
    assert np.array_equal(render(odd, Rig(2)), render(mesh, Rig(2)))


@pytest.mark.parametrize("fine", [0, 17])
def test_supersampling_out_of_range_is_refused(fine):
    with pytest.raises(ValueError, match=f"fine: expected 1 to 16, got {fine}"):
        render(ball(0.5), Rig(), fine)


def test_results_come_in_order_and_errors_are_passed_on():
    numbers = [float(n) for n in range(50)]
    assert list(ordered(math.sqrt, numbers)) == [math.sqrt(n) for n in numbers]
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(ordered(math.sqrt, [1.0, -1.0], 1))


def test_a_worker_ends_when_its_parent_is_killed():
    ends, alive = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            views._end_with(os.getppid())
            os.write(alive, b"x")
            time.sleep(60)
            os._exit(0)
        signal.pause()
    os.close(alive)
    assert os.read(ends, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    # The pipe ends with the last process that could write to it.
    assert select.select([ends], [], [], 20)[0]
    assert os.read(ends, 1) == b""
    os.close(ends)


def test_no_process_at_all_is_refused():
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        list(ordered(math.sqrt, [1.0], 0))
