"""Where meshes are found, and how each is read: three layouts, four formats.

    ShapeNetCore    <synset>/<model>/models/model_normalized.obj; the category is the synset
    archive         meshes.npz, triangles in a row with ``offsets``, and index.json
    folder          any OBJ, PLY, GLB or STL below it; the category is the first folder

A family is a model with its variants, which must not be torn apart by a split. In ShapeNetCore it
is the model, whatever its synset; in a folder it is the file without its suffix. In the archive
names tell: see ``families_of``.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import trimesh

from shala_lite.datasets.cameras import Rig
from shala_lite.datasets.meshes import GREY, NO_FACES, Mesh, fitted, join
from shala_lite.datasets.views import render

MODEL = "models/model_normalized.obj"
UP = {".obj": "y", ".glb": "y", ".ply": "z", ".stl": "z"}  # the usual one of each format
UNREADABLE = "cannot be read as a mesh"
CUT = "it is shorter than it says, or no STL at all"
OUTSIDE = {  # by layout: meshes that are there, but not where the layout has them
    "shapenet": "not in the layout of ShapeNetCore",
    "archive": "not in the archive",
}
NO_FILE = "a link that leads nowhere, or no file"
LINKED = "a link to a folder, which is not looked into"
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_VARIANTS = frozenset("autumn snow dead level leve first second age mat".split())


@dataclass(frozen=True)
class Source:
    """One mesh that was found.

    Args:
        name: no other has it.
        category, family: as the layout says.
        content: its file, or its triangles (F, 3, 3) and their colours (F, 3).
        up: the axis that points upwards, y or z.
        stamp: another one where the content is another.
    """

    name: str
    category: str
    family: str
    content: Any
    up: str
    stamp: str


def find(folder: Path, up: str | None = None) -> tuple[str, list[Source]]:
    """The layout of a folder, a key of ``shapenet.LAYOUTS``, and its meshes in order of name.

    Args:
        folder: where to look.
        up: the axis that points upwards. None: the one of the layout, or of the format.

    Raises:
        FileNotFoundError: a folder that is not there, or has no mesh.
        ValueError: an archive that is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--from {folder}: there is no such folder")
    if (folder / "meshes.npz").is_file():
        return "archive", _archive(folder, up or "y")
    if any(folder.glob(f"*/*/{MODEL}")):
        paths = sorted(folder.glob(f"*/*/{MODEL}"))
        parts = [path.relative_to(folder).parts for path in paths]
        found = [
            Source(f"{synset}/{model}", synset, model, path, up or "y", _stamp(path))
            for path, (synset, model, *_) in zip(paths, parts)
        ]
        return "shapenet", found
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in UP and p.is_file())
    if not paths:
        raise FileNotFoundError(
            f"--from {folder}: found no meshes: neither <synset>/<model>/{MODEL}, nor meshes.npz, "
            f"nor any file of {', '.join(UP)}"
        )
    found = []
    for path in paths:
        inside = path.relative_to(folder)
        category = inside.parts[0] if len(inside.parts) > 1 else "object"
        family, above = inside.with_suffix("").as_posix(), up or UP[path.suffix.lower()]
        found.append(Source(inside.as_posix(), category, family, path, above, _stamp(path)))
    return "folder", found


def overlooked(folder: Path, layout: str, sources: Sequence[Source]) -> dict[str, list[str]]:
    """What looks like a mesh in a folder and is not among those found: names by the reason."""
    known = {source.content for source in sources if isinstance(source.content, Path)}
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            reason = LINKED if layout == "folder" and path.is_symlink() else None
        elif path.suffix.lower() not in UP or path in known:
            reason = None
        else:
            reason = OUTSIDE.get(layout, NO_FILE) if path.is_file() else NO_FILE
        if reason:
            found.setdefault(reason, []).append(path.relative_to(folder).as_posix())
    return found


def families_of(sources: Sequence[str]) -> list[str]:
    """The family of each model in the archive, from where it comes from.

    Models of one pack belong together where their names, without numbers and without the words
    for levels and seasons, are the same, or where one begins with the other: ``BirchTree_Snow_2``
    and ``BirchTree_1``, ``benchCushion`` and ``bench``.
    """
    stems = []
    for source in map(PurePosixPath, sources):
        words = [word.lower() for word in _WORDS.findall(source.stem)]
        telling = [word for word in words if not word.isdigit() and word not in _VARIANTS]
        stems.append((source.parent.as_posix(), tuple(telling or words)))
    known = set(stems)
    families = []
    for pack, words in stems:
        lengths = range(1, len(words) + 1)
        shortest = next((n for n in lengths if (pack, words[:n]) in known), len(words))
        families.append(f"{pack}/{' '.join(words[:shortest])}")
    return families


def draw(job: tuple[Source, Rig]) -> tuple[np.ndarray | None, str, bool]:
    """The views of a mesh, or None; why there are none; and whether all its colours are known."""
    source, rig = job
    try:
        mesh, coloured = read(source)
    except ValueError as error:
        return None, str(error), True
    return render(mesh, rig), "", coloured


def read(source: Source) -> tuple[Mesh, bool]:
    """A mesh in the unit sphere, upright along z, and whether all its colours are known.

    Surfaces of unknown colour are grey.

    Raises:
        ValueError: why it cannot be used.
    """
    if isinstance(source.content, Path):
        mesh, coloured = _read_file(source.content)
    else:
        triangles, colours = source.content
        faces = np.arange(3 * len(triangles), dtype=np.int32).reshape(-1, 3)
        mesh, coloured = Mesh(triangles.reshape(-1, 3), faces, colours), True
    if source.up == "y":  # what looked along z now looks along x
        mesh = mesh._replace(vertices=mesh.vertices[:, [2, 0, 1]])
    return fitted(mesh), coloured


def _read_file(path: Path) -> tuple[Mesh, bool]:
    if path.suffix.lower() == ".stl":
        _check_stl(path)
    try:
        # Unprocessed: vertices that are not finite would vanish without a word.
        parts = trimesh.load_scene(path, process=False, resolver=_Beside(str(path))).dump()
    except Exception as error:  # whatever a damaged file provokes in a parser
        raise ValueError(f"{UNREADABLE} ({type(error).__name__})") from error
    meshes, coloured = [], True
    for part in parts:
        if isinstance(part, trimesh.Trimesh) and len(part.faces):
            colours = _colours(part)
            coloured &= colours is not None
            if colours is None:
                colours = np.full((len(part.faces), 3), GREY, np.uint8)
            meshes.append(Mesh(part.vertices.view(np.ndarray), part.faces, colours))
    if not meshes:
        raise ValueError(NO_FACES)
    return join(meshes), coloured


def _check_stl(path: Path) -> None:
    """Raise ValueError for an STL of another length than it says; trimesh finds it empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{UNREADABLE} ({type(error).__name__})") from error
    if not content:
        return
    if content.lstrip()[:5].lower() == b"solid" and b"\0" not in content[:84]:  # text
        _, end, rest = content.lower().rpartition(b"endsolid")
        if not end or b"facet" in rest.partition(b"\n")[2]:
            raise ValueError(CUT)
        return
    told = 84 + 50 * int.from_bytes(content[80:84], "little")  # a header, 50 bytes for each face
    if len(content) < told:
        raise ValueError(CUT)
    if len(content) > told:
        raise ValueError(f"{UNREADABLE} (it is longer than it says)")


class _Beside(trimesh.resolvers.FilePathResolver):
    """Files in the folder of a mesh and in the one above: ShapeNetCore has ``../images``.

    A material that names a picture gets the key ``pictured``: without it one whose picture is
    missing looks like one that has none.
    """

    def get(self, name: str) -> bytes:
        name = name.strip().replace("\\", "/")
        try:
            content = super().get(name)
        except (ValueError, OSError):
            folder = Path(self.parent).resolve()
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.parent):
                raise
            content = path.read_bytes()
        if name.lower().endswith(".mtl"):
            content = re.sub(rb"(?im)^[ \t]*map_kd[ \t].*$", rb"\g<0>\npictured yes", content)
        return content


def _colours(mesh: trimesh.Trimesh) -> np.ndarray | None:
    """Red, green and blue of each face (F, 3), or None where no material or picture says."""
    visual = mesh.visual
    try:
        if visual.kind in ("face", "vertex"):
            return visual.face_colors[:, :3]
        if visual.kind != "texture":
            return None
        material = visual.material
        pictured = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
        known = getattr(material, "kwargs", {})
        if pictured is not None and visual.uv is not None:
            return material.to_color(visual.uv[mesh.faces].mean(1))[:, :3]
        if "pictured" in known:  # what it says besides is a tint of that picture
            return None
        if "kd" in known or getattr(material, "baseColorFactor", None) is not None:
            return np.tile(np.asarray(material.main_color[:3], np.uint8), (len(mesh.faces), 1))
    except Exception:  # a picture that does not decode, coordinates that do not fit
        return None
    return None


def _archive(folder: Path, up: str) -> list[Source]:
    path = folder / "index.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        known = [(entry["source"], entry["category"], entry["sha256"]) for entry in entries]
        path = folder / "meshes.npz"
        with np.load(path) as arrays:
            vertices, colours, offsets = (
                arrays[name] for name in ("tri_vertices", "tri_rgb", "offsets")
            )
        lengths = {len(vertices), len(colours), int(offsets[-1])}
        if len(lengths) > 1 or len(offsets) != len(known) + 1 or (np.diff(offsets) < 0).any():
            raise ValueError(f"{len(known)} models are listed, and the arrays do not fit them")
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged or missing ({error!r})") from error
    families = families_of([name for name, _, _ in known])
    found = []
    for at, ((name, category, stamp), family) in enumerate(zip(known, families)):
        own = slice(*offsets[at : at + 2])
        found.append(Source(name, category, family, (vertices[own], colours[own]), up, stamp))
    return sorted(found, key=lambda source: source.name)


def _stamp(path: Path) -> str:
    seen = path.stat()
    return f"{seen.st_size} {seen.st_mtime_ns}"
