"""Meshes that the preparation of views finds: archives, colours, axes, families, and faults."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from small_meshes import FAULTS, add_bad, write_archive

from data_scripts.shapenet_meshes import families_of, find, read

REAL = Path(os.environ.get("SHALA_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mesh_says_why(tmp_path, fault):
    name, reason = add_bad(tmp_path, fault)
    (source,) = find(tmp_path)[1]
    assert source.name == name
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read(source)
    assert str(caught.value) == reason


@pytest.mark.parametrize("fault", ["no index", "fewer", "cut", "other arrays"])
def test_a_damaged_archive_is_named(tmp_path, fault):
    folder = write_archive(tmp_path / "archive", [f"p/a{n}.obj" for n in range(5)])
    index, arrays = folder / "index.json", folder / "meshes.npz"
    if fault == "no index":
        index.unlink()
    elif fault == "fewer":
        index.write_text(json.dumps(json.loads(index.read_text())[1:]))
    elif fault == "cut":
        arrays.write_bytes(arrays.read_bytes()[:-200])
    else:
        np.savez(arrays, x=np.zeros(3))
    named = "index.json" if fault == "no index" else "meshes.npz"
    with pytest.raises(ValueError, match=rf"{named}: damaged or missing"):
        find(folder)


def test_what_points_upwards_can_be_told(tmp_path):
    tall = trimesh.creation.box((1, 1, 4))
    path = tmp_path / "m.ply"
    tall.export(path)
    for up, axis in ((None, 2), ("z", 2), ("y", 0)):
        mesh, _ = read(find(tmp_path, up)[1][0])
        assert np.ptp(mesh.vertices, axis=0).argmax() == axis


def test_pictures_on_a_surface_and_materials_of_a_scene_are_seen(tmp_path):
    square = trimesh.Trimesh(
        [[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], [[0, 1, 2], [0, 2, 3]]
    )
    picture = Image.new("RGB", (8, 8), (10, 220, 30))
    square.visual = trimesh.visual.TextureVisuals(
        uv=[[0, 0], [1, 0], [1, 1], [0, 1]],
        material=trimesh.visual.material.PBRMaterial(baseColorTexture=picture),
    )
    scene = trimesh.Scene([square])
    ball = trimesh.creation.icosphere(1, 0.2)
    paint = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255])
    ball.visual = trimesh.visual.TextureVisuals(material=paint)
    scene.add_geometry(ball, transform=trimesh.transformations.translation_matrix([3, 0, 0]))
    scene.export(tmp_path / "m.glb")
    mesh, coloured = read(find(tmp_path)[1][0])
    assert coloured
    seen = {tuple(colour) for colour in mesh.colours.tolist()}
    assert seen == {(10, 220, 30), (255, 0, 0)}
    # The ball is where the scene puts it, along an axis that is not turned away.
    red = mesh.vertices[mesh.faces[mesh.colours[:, 0] == 255]].reshape(-1, 3)
    assert np.ptp(red, axis=0).max() < 0.3


def test_variants_of_a_model_are_one_family():
    groups = [
        [
            "a/BirchTree_1.glb",
            "a/BirchTree_5.glb",
            "a/BirchTree_Dead_3.glb",
            "a/BirchTree_Snow_2.glb",
        ],
        ["a/PineTree_Autumn_1.glb", "a/PineTree_4.glb"],
        ["b/Port_FirstAge_Level1.glb", "b/Port_SecondAge_Level3.glb"],
        ["b/Storage_FirstAge_Leve3.glb", "b/Storage_FirstAge_Level1.glb"],
        ["k/bench.fbx", "k/benchCushion.fbx", "k/benchCushionLow.fbx"],
        ["k/kitchenCabinetDrawer 1.fbx", "k/kitchenCabinetDrawer.fbx"],
        ["q/Military Airplane.fbx", "q/MilitaryAirplane2.fbx"],
        ["q/chair_A.obj", "q/chair_A_wood.obj"],
        ["q/chair_B.obj", "q/chair_B_wood.obj"],
        ["c/BirchTree_1.glb"],
        ["c/12.glb"],
    ]
    families = [families_of([n for group in groups for n in group])[k] for k in range(23)]
    at = 0
    for group in groups:
        assert len(set(families[at : at + len(group)])) == 1
        at += len(group)
    assert at == len(families)
    assert len(set(families)) == len(groups)


@pytest.mark.skipif(
    not (REAL / "cc0_meshes").is_dir(), reason="the archive of meshes is not here; set SHALA_DATA"
)
def test_the_archive_of_meshes_has_families_of_variants():
    layout, sources = find(REAL / "cc0_meshes")
    assert (layout, len(sources)) == ("archive", 614)
    families = {}
    for source in sources:
        families.setdefault(source.family, []).append(source.name)
    assert 200 < len(families) < 400
    assert max(map(len, families.values())) < 0.05 * len(sources)
    mesh, coloured = read(sources[0])
    assert coloured
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1, abs=1e-6)
