"""Small meshes in the layouts that the preparation of views reads."""

import hashlib
import json
from pathlib import Path

import numpy as np
import trimesh

from data_scripts.shapenet_meshes import UNREADABLE
from shala_lite.datasets import meshes

CATEGORIES = ("cup", "hut", "jar")
EACH = 6
ALL = len(CATEGORIES) * EACH  # meshes of `write_folder`


def solid_of(number: int) -> trimesh.Trimesh:
    """A box or a cylinder, each of other proportions, upright along z."""
    wide, tall = 0.3 + 0.17 * (number % 5), 0.4 + 0.11 * (number % 7)
    if number % 2:
        return trimesh.creation.box((wide, 1.0, tall))
    return trimesh.creation.cylinder(wide, tall, sections=12)


def write_obj(path: Path, mesh: trimesh.Trimesh, colour=(0.8, 0.2, 0.1), material=True) -> None:
    """An OBJ, upright along y as is usual, with a material file beside it or without."""
    lines = [f"mtllib {path.stem}.mtl", *(f"v {y} {z} {x}" for x, y, z in mesh.vertices)]
    lines += ["usemtl paint", *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in mesh.faces)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    if material:
        paint = "newmtl paint\nKd {} {} {}\n".format(*colour)
        path.with_suffix(".mtl").write_text(paint)


def write_folder(folder: Path) -> Path:
    """``EACH`` OBJ files in a folder for each of ``CATEGORIES``; returns ``folder``."""
    for kind, category in enumerate(CATEGORIES):
        for number in range(EACH):
            write_obj(folder / category / f"m{number}.obj", solid_of(7 * kind + number))
    return folder


def write_shapenet(folder: Path) -> Path:
    """The layout of ShapeNetCore; model m0 is in the two synsets, with another shape in each."""
    for kind, synset in enumerate(("02691156", "03001627")):
        for number in range(EACH):
            model = folder / synset / f"m{number if number == 0 else 10 * kind + number}"
            write_obj(model / "models" / "model_normalized.obj", solid_of(7 * kind + number))
    return folder


def write_archive(folder: Path, names: list[str]) -> Path:
    """The layout of the archive: a solid for each name, upright along y."""
    folder.mkdir(parents=True, exist_ok=True)
    soups = [solid_of(n).triangles[:, :, [1, 2, 0]] for n in range(len(names))]
    np.savez(
        folder / "meshes.npz",
        tri_vertices=np.concatenate(soups).astype(np.float16),
        tri_rgb=np.concatenate(
            [np.full((len(s), 3), 9 * n, np.uint8) for n, s in enumerate(soups)]
        ),
        offsets=np.cumsum([0, *map(len, soups)]),
    )
    index = [
        {
            "category": CATEGORIES[n % len(CATEGORIES)],
            "source": name,
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
        }
        for n, name in enumerate(names)
    ]
    (folder / "index.json").write_text(json.dumps(index))
    return folder


FAULTS = ("nothing in it", "no faces", "no area", "not finite", "no such vertex", "cut")


def add_bad(folder: Path, fault: str) -> tuple[str, str]:
    """Add one bad mesh; returns its name and the reason to be reported."""
    path = folder / "cup" / "bad.obj"
    write_obj(path, solid_of(3))
    if fault == "nothing in it":
        path.write_text("")
    elif fault == "no faces":
        path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    elif fault == "no area":
        path.write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
        return "cup/bad.obj", meshes.FLAT
    elif fault == "not finite":
        path.write_text(path.read_text().replace("v ", "v nan ", 1))
        return "cup/bad.obj", meshes.NOT_FINITE
    elif fault == "no such vertex":
        path.write_text(path.read_text() + "f 1 2 999\n")
        return "cup/bad.obj", f"{UNREADABLE} (IndexError)"
    elif fault == "cut":
        path.unlink()
        path = path.with_suffix(".glb")
        solid_of(3).export(path)
        path.write_bytes(path.read_bytes()[:300])
        return "cup/bad.glb", f"{UNREADABLE} (JSONDecodeError)"
    return "cup/bad.obj", meshes.NO_FACES
