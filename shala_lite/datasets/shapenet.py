"""Objects seen from many azimuths: each view is a modality, and a set of views one object.

Modalities are ``view00``, ``view01`` and so on, images of shape (4, side, side): red, green and
blue over white, and alpha, the share of a pixel that the object covers, as the fourth channel.
View k of M is seen from the azimuth 360 k / M degrees, by the cameras of a ``Rig``.

``embedded`` builds chairs, tables, lamps and cars from attributes (``objects``) and renders them
once; the pictures lie in the user's cache folder, and may be removed there at any time. ``real``
are meshes that ``data_scripts/shapenet.py`` rendered: ``{split}_views.npy`` uint8
(N, M, 4, side, side), and ``shapenet.json`` with their sha256, cameras, names, labels and families.

Both are mapped from their files, so that they may be larger than memory. ``shapenet_32`` shows the
same embedded objects from twice as many azimuths, ``shapenet_64px`` in pictures twice as wide.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..modalities import Modality
from . import objects, shards
from .base import MultimodalDataset
from .cameras import Rig
from .views import FINE, ordered, render

RIGS = {"shapenet": Rig(), "shapenet_32": Rig(views=32), "shapenet_64px": Rig(side=64)}
SIZES = {"train": 2_000, "val": 300, "test": 600}  # embedded
LABEL = "category"  # the attribute that is the class of an embedded object
MANIFEST = "shapenet.json"  # beside the arrays; written last
LAYOUTS = {
    "shapenet": "ShapeNetCore",
    "archive": "the archive of CC0 meshes, which is not ShapeNet",
    "folder": "a folder of meshes, which is not ShapeNet",
}
RENDERING = ("cameras", "meshes", "views")  # modules that make pictures of meshes
QUIET = 200 * 16 * 32**2  # pixels: fewer are rendered in a few seconds, without a progress bar

_BUILDING = (*RENDERING, "objects", "shapenet")

Job = tuple[Rig, dict[str, int], NDArray[np.float64]]


def code(modules: tuple[str, ...] = RENDERING) -> str:
    """sha256 (hex) of the source of modules in this folder, and of Embree's version."""
    try:
        embree = importlib.metadata.version("embreex")
    except importlib.metadata.PackageNotFoundError:
        embree = "none"
    sources = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in modules]
    return hashlib.sha256(b"\0".join([embree.encode(), *sources])).hexdigest()


_CODE = code(_BUILDING)  # of what this process loaded, also if a file is edited while it runs


def arrays(name: str) -> str:
    """The folder of the prepared real data under the data root."""
    return f"{name}_arrays"


def embedded(
    split: str, size: int | None, seed: int, name: str = "shapenet", workers: int | None = None
) -> MultimodalDataset:
    """The data set that needs no file: objects built from attributes.

    ``attributes`` holds each name of ``objects.VALUES`` as positions in it; the label is the
    category. The first call with new arguments renders, about 25 objects a second and core, and
    shows how far it is.

    Args:
        name: of ``RIGS``.
        workers: how many processes render, as in ``views.ordered``. The bytes do not depend on it.
    """
    count, rig = SIZES[split] if size is None else size, RIGS[name]
    root = np.random.default_rng([seed, zlib.crc32(f"shapenet/embedded/{split}".encode())])
    for_values, for_shapes = root.spawn(2)
    values = objects.deal(count, for_values)
    nuisances = for_shapes.random((count, objects.NUISANCES))

    def rows() -> Iterator[NDArray[np.uint8]]:
        jobs = [
            (rig, {key: int(known[row]) for key, known in values.items()}, nuisances[row])
            for row in range(count)
        ]
        yield from tqdm(
            ordered(_draw, jobs, workers),
            desc=f"{name} {split}",
            total=count,
            unit="object",
            disable=count * rig.views * rig.side**2 < QUIET,
            mininterval=1.0,
            leave=False,
        )

    recipe = json.dumps([asdict(rig), FINE, split, count, seed, np.__version__, _CODE])
    made = f"{name}-{split}-{count}-seed{seed}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    path = Path(pooch.os_cache("shala_lite")) / "rendered" / f"{made}.npy"
    shape = (count, rig.views, 4, rig.side, rig.side)
    known = {key: torch.from_numpy(known) for key, known in values.items()}
    return MultimodalDataset(
        **_views(shards.cached(path, shape, rows)),
        labels=known[LABEL].clone(),
        attributes=known,
        name=name,
        split=split,
        source="embedded",
        note=f"chairs, tables, lamps and cars built from seven attributes, {rig.views} views each",
    )


def real(
    split: str, size: int | None, seed: int, root: Path, name: str = "shapenet"
) -> MultimodalDataset:
    """Meshes that ``data_scripts`` rendered under ``root``: as many views as it was told to.

    The label, and the one attribute, is the category, a position in the manifest's ``categories``.
    No family of models, and so no two variants of one, is in two splits.

    Args:
        size: how many objects, drawn with the seed and copied into memory. None: all of the split,
            in the order of the file, mapped.

    Raises:
        FileNotFoundError: where nothing is prepared.
        ValueError: a damaged file, or more objects than there are.
    """
    folder = root / arrays(name)
    manifest = read_manifest(folder, root)
    rig, items = Rig(**manifest["rig"]), manifest["items"][split]
    try:
        pixels = shards.mapped(folder / f"{split}_views.npy", manifest["sha256"][split])
    except ValueError as error:
        raise ValueError(f"{error}. Remove {folder} and prepare the data again") from error
    count = len(items["labels"])
    if pixels.shape != (count, rig.views, 4, rig.side, rig.side):
        raise ValueError(f"{folder}: {split} has the shape {pixels.shape}, {MANIFEST} another")
    labels = np.array(items["labels"], np.int64)
    if size is not None:
        if size > count:
            raise ValueError(f"size: there are {count:,} objects, expected no more, got {size:,}")
        rng = np.random.default_rng([seed, zlib.crc32(f"shapenet/real/{split}".encode())])
        chosen = rng.permutation(count)[:size]
        pixels, labels = pixels[chosen], labels[chosen]
    total = sum(len(part["labels"]) for part in manifest["items"].values())
    return MultimodalDataset(
        **_views(pixels),
        labels=torch.from_numpy(labels),
        attributes={LABEL: torch.from_numpy(labels)},
        name=name,
        split=split,
        source="real",
        note=f"{total:,} meshes of {len(manifest['categories'])} categories from "
        f"{LAYOUTS[manifest['layout']]}, {rig.views} views each at {rig.side}x{rig.side}",
    )


def rig_of(source: str, root: Path, name: str = "shapenet") -> Rig:
    """The cameras: of ``RIGS``, or of the ``real`` data under ``root``; raises as ``real``."""
    if source == "embedded":
        return RIGS[name]
    return Rig(**read_manifest(root / arrays(name), root)["rig"])


def read_manifest(folder: Path, root: Path) -> dict[str, Any]:
    """What the JSON file beside the prepared arrays says.

    Raises:
        FileNotFoundError: where nothing is prepared.
        ValueError: where it is not such a file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        more = {arrays("shapenet_32"): " --views 32", arrays("shapenet_64px"): " --side 64"}
        raise FileNotFoundError(
            f"no real views under {root}: {path} is not there. Prepare it with "
            f"`python -m data_scripts.shapenet --from DIR --root {root}"
            f"{more.get(folder.name, '')}`, "
            "or name a folder that has it with root= or $SHALA_DATA"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        Rig(**manifest["rig"])
        for split in SIZES:
            names, labels, families = (
                manifest["items"][split][key] for key in ("names", "labels", "families")
            )
            if not len(names) == len(labels) == len(families):
                raise ValueError(f"{split}: names, labels and families differ in number")
            if not isinstance(manifest["sha256"][split], str):
                raise TypeError(f"sha256 of {split} is no text")
        if manifest["layout"] not in LAYOUTS or not isinstance(manifest["categories"], list):
            raise ValueError(f"layout: {manifest['layout']!r}, expected of {list(LAYOUTS)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a manifest of prepared views ({error!r})") from error
    return manifest


def _draw(job: Job) -> NDArray[np.uint8]:
    rig, values, nuisance = job
    return render(objects.build(values, nuisance), rig)


def _views(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Modalities and observations of pixels (N, M, 4, side, side), which are not copied."""
    whole = torch.from_numpy(pixels)
    names = [f"view{view:02d}" for view in range(whole.shape[1])]
    return {
        "modalities": tuple(Modality(name, tuple(whole.shape[2:])) for name in names),
        "observations": {name: whole[:, view] for view, name in enumerate(names)},
    }


def variant(name: str) -> SimpleNamespace:
    """Another of ``RIGS``, with the functions of a data set's module."""
    return SimpleNamespace(embedded=partial(embedded, name=name), real=partial(real, name=name))
