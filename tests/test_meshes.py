"""Solids enclose what they should, and any mesh fits the unit sphere or says why not."""

import numpy as np
import pytest

from shala_lite.datasets import meshes
from shala_lite.datasets.meshes import Mesh, box, fitted, join, normals, solid, tube

RED = (200, 10, 20)


def volume(mesh):
    """Enclosed volume, by the divergence theorem: positive where faces wind outwards."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(float) for k in range(3))
    return (a * np.cross(b, c)).sum() / 6


def edges_meet(mesh):
    """Whether each edge is walked once in each direction, so that the surface is closed."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    return sorted(map(tuple, edges)) == sorted(map(tuple, edges[:, ::-1]))


def test_a_box_encloses_its_volume():
    made = box((-1, 0, 2), (1, 3, 2.5), RED)
    assert volume(made) == pytest.approx(3)
    assert edges_meet(made)
    assert made.vertices.min(0).tolist() == [-1, 0, 2]
    assert made.vertices.max(0).tolist() == [1, 3, 2.5]


@pytest.mark.parametrize("axis", [(0, 0, 2), (1, 2, -1), (0, 0, -3), (0.01, 0, 1)])
@pytest.mark.parametrize("radii", [(0.5, 0.5), (0.6, 0.2)])
def test_a_tube_encloses_a_frustum(axis, radii):
    start, sides = np.array([0.3, -1, 0.5]), 8
    made = tube(start, start + axis, radii, RED, sides)
    area = sides / 2 * np.sin(2 * np.pi / sides)  # of a regular polygon of radius 1
    squares = radii[0] ** 2 + radii[0] * radii[1] + radii[1] ** 2
    assert volume(made) == pytest.approx(area * squares / 3 * np.linalg.norm(axis), rel=1e-5)
    assert edges_meet(made)


def test_joined_parts_keep_their_corners_and_colours():
    parts = [box((0, 0, 0), (1, 1, 1), RED), tube((2, 0, 0), (2, 0, 1), (0.2, 0.1), (1, 2, 3))]
    whole = join(parts)
    assert volume(whole) == pytest.approx(sum(map(volume, parts)))
    first = len(parts[0].faces)
    assert (whole.colours[:first] == RED).all()
    assert (whole.colours[first:] == (1, 2, 3)).all()
    triangles = [part.vertices[part.faces] for part in parts]
    assert np.array_equal(whole.vertices[whole.faces], np.concatenate(triangles))


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1e-6, 3e-6), (1e12, -1e12)])
def test_a_fitted_mesh_just_fills_the_unit_sphere(scale, shift):
    raw = join([box((0, 0, 0), (1, 2, 3), RED), tube((0, 0, 3), (0, 1, 4), (0.3, 0.2), RED)])
    made = fitted(raw._replace(vertices=(raw.vertices.astype(float) * scale + shift)))
    assert np.linalg.norm(made.vertices, axis=1).max() == pytest.approx(1, abs=1e-6)
    assert abs(made.vertices.min(0) + made.vertices.max(0)).max() < 1e-5
    # Its proportions stay.
    assert np.allclose(normals(made), normals(raw), atol=1e-3)
    assert made.vertices.dtype == np.float32


def test_what_has_no_area_and_what_no_face_uses_is_dropped():
    raw = box((0, 0, 0), (1, 1, 1), RED)
    stray = np.concatenate([raw.vertices, [[100, 100, 100], [0.5, 0, 0]]]).astype(np.float32)
    flat = np.array([[0, 0, 1], [8, 8, 8], [0, 9, 1]])
    colours = np.concatenate([[[1, 1, 1]] * 3, raw.colours]).astype(np.uint8)
    made = fitted(Mesh(stray, np.concatenate([flat, raw.faces]), colours))
    alone = fitted(raw)
    assert np.array_equal(made.vertices[made.faces], alone.vertices[alone.faces])
    assert np.array_equal(made.colours, raw.colours)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e31])
def test_a_vertex_that_is_not_finite_is_refused(value):
    raw = box((0, 0, 0), (1, 1, 1), RED)
    vertices = raw.vertices.astype(float)
    vertices[3, 1] = value
    with pytest.raises(ValueError, match=meshes.NOT_FINITE):
        fitted(raw._replace(vertices=vertices))


def test_meshes_without_a_surface_are_refused():
    raw = box((0, 0, 0), (1, 1, 1), RED)
    with pytest.raises(ValueError, match=meshes.NO_FACES):
        fitted(raw._replace(faces=raw.faces[:0], colours=raw.colours[:0]))
    with pytest.raises(ValueError, match=meshes.BAD_FACES):
        fitted(raw._replace(faces=raw.faces + 1))
    line = solid([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(3, 0, 0), (4, 0, 0), (5, 0, 0)], RED)
    point = raw._replace(vertices=raw.vertices * 0)
    for flat in (line, point):
        with pytest.raises(ValueError, match=meshes.FLAT):
            fitted(flat)
