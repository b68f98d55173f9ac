"""Cameras and rays agree, and stand where they should."""

import numpy as np
import pytest

from shala_lite.datasets.cameras import Rig, project, rays

RIGS = [Rig(), Rig(7, -35.0, 5, 70.0), Rig(1, 0.0, 1, 10.0), Rig(32, 60.0, 9, 45.0)]


@pytest.mark.parametrize("rig", RIGS)
def test_a_point_on_the_ray_of_a_pixel_is_seen_at_its_centre(rig):
    matrices = rig.matrices()
    origins, directions = rays(matrices, rig.side)
    assert np.linalg.norm(directions, axis=-1) == pytest.approx(1)
    centres = np.arange(rig.side) + 0.5
    for far in (0.3, 1.0, 17.0):
        for view in range(rig.views):
            points = origins[view] + far * directions[view].reshape(-1, 3)
            seen = project(matrices[view : view + 1], points)[0].reshape(rig.side, rig.side, 2)
            assert np.allclose(seen[..., 0], centres[None, :], atol=1e-6)
            assert np.allclose(seen[..., 1], centres[:, None], atol=1e-6)
            # In front of the camera, at that depth along the axis.
            depth = points @ matrices[view, 2, :3] + matrices[view, 2, 3]
            assert (depth > 0).all()


@pytest.mark.parametrize("rig", RIGS)
def test_the_origin_is_in_the_middle_and_up_is_up(rig):
    matrices, half = rig.matrices(), rig.side / 2
    assert np.allclose(project(matrices, np.zeros((1, 3))), half)
    above = project(matrices, np.array([[0, 0, 0.1]]))[:, 0]
    assert np.allclose(above[:, 0], half)
    assert (above[:, 1] < half).all()
    assert np.allclose(rays(matrices, rig.side)[0], rig.places())


@pytest.mark.parametrize("rig", RIGS)
def test_cameras_stand_at_their_azimuths_and_look_at_the_origin(rig):
    places = rig.places()
    assert np.allclose(np.linalg.norm(places, axis=1), rig.distance)
    azimuths = np.rad2deg(np.arctan2(places[:, 1], places[:, 0])) % 360
    expected = 360 * np.arange(rig.views) / rig.views
    assert np.allclose((azimuths - expected + 180) % 360, 180)
    assert np.allclose(np.rad2deg(np.arcsin(places[:, 2] / rig.distance)), rig.elevation)
    turn = rig.directions()
    assert np.allclose(turn @ turn.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(turn), 1)


def test_from_the_front_left_is_on_the_right():
    # Camera 0 stands on the axis x, and looks at what faces it.
    seen = project(Rig(4, 0.0, 10).matrices(), np.array([[0, 0.5, 0]]))[:, 0, 0]
    assert seen[0] > 5
    assert seen[2] < 5
    assert seen[[1, 3]] == pytest.approx(5)


@pytest.mark.parametrize("rig", RIGS)
def test_the_unit_sphere_just_fills_the_picture(rig):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    reach = abs(project(rig.matrices(), points) - rig.side / 2).max((1, 2))
    assert (reach <= rig.side / 2 * (1 + 1e-9)).all()
    assert (reach > 0.99 * rig.side / 2).all()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"views": 0}, "views: expected a positive integer, got 0"),
        ({"views": 2.0}, "views: expected a positive integer, got 2.0"),
        ({"side": True}, "side: expected a positive integer, got True"),
        ({"elevation": 90}, "elevation: expected degrees in .*got 90"),
        ({"elevation": "up"}, "elevation: expected degrees in .*got 'up'"),
        ({"field_of_view": 0}, "field_of_view: expected degrees in .*got 0"),
        ({"field_of_view": float("nan")}, "field_of_view: expected degrees in .*got nan"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Rig(**arguments)
