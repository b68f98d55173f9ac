"""Render meshes for ``load_dataset("shapenet", ..., source="real")``.

    python -m data_scripts.shapenet --from DIR                 # 16 views, 32x32 pixels
    python -m data_scripts.shapenet --from DIR --views 32      # for "shapenet_32"
    python -m data_scripts.shapenet --from DIR --side 64       # for "shapenet_64px"

``DIR`` holds ShapeNetCore, whose terms do not allow to pass it on, or other meshes: see
``shapenet_meshes``. Their views become arrays in ``shapenet_arrays/``, a file for each split. A run
that is interrupted, killed, or out of disk space goes on where it stopped; while it works it needs
twice the space of the arrays. What cannot be used is left out, counted and named by reason, here
and in ``shapenet.json``. Meshes whose colour is not known are grey, and counted too. At the end it
says how many objects each split has, and the command that runs the chapter on them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_scripts import command, shapenet_meshes
from data_scripts.shapenet_arrays import Shown, assemble, kept, part_of, report, sizes, some
from data_scripts.shapenet_meshes import Source, draw, find, overlooked
from shala_lite import files
from shala_lite.datasets import shapenet, shards
from shala_lite.datasets.cameras import Rig
from shala_lite.datasets.views import ordered

BLOCK = 64  # meshes rendered at a time; at most so many are lost when a run is killed
# What makes pictures of files: blocks and arrays that other code made are made anew.
CODE = (shapenet.code(), files.file_sha256(Path(shapenet_meshes.__file__)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0 where the data are ready."""
    options = _parser().parse_args(arguments)
    fine = "shapenet_64px" if options.side == 64 else "shapenet"
    name = "shapenet_32" if options.views == 32 else fine

    def prepared(root: Path) -> list[str]:
        rig = Rig(options.views, options.elevation, options.side)
        told = (options.up, options.workers, not options.quiet)
        return prepare(root, options.source, rig, name, *told)

    resumes = "goes on where this one stopped"
    return command.run(name, options.root, prepared, resumes, lambda root: sizes(root, name))


def prepare(
    root: Path,
    source: Path,
    rig: Rig,
    name: str = "shapenet",
    up: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> list[str]:
    """The views of all meshes in ``source`` as arrays under ``root``.

    Arrays that are there, whole, and made from the same meshes by the same cameras are kept.
    Others are replaced only once the new ones are complete.

    Args:
        root: the data root.
        source: where ``shapenet_meshes.find`` looks.
        rig: the cameras.
        name: of the data set, which decides the folder.
        up: the axis that points upwards, y or z. None: the usual one of the layout or format.
        workers: how many processes render. None: one for each core.
        progress: whether to show a progress bar.

    Returns:
        For each reason why something was left out, a line that counts.

    Raises:
        FileNotFoundError: where there are no meshes.
        OSError: a full disk, or a process that ended; what was rendered is kept.
        ValueError: where none can be used, or too few differ.
    """
    layout, sources = find(source, up)
    beside = overlooked(source, layout, sources)
    target, blocks = root / shapenet.arrays(name), root / f"{name}_blocks"
    # The path of the folder does not count: where it lies, a mesh is the same.
    keys = [(s.name, s.category, s.family, s.up, s.stamp) for s in sources]
    made_of = files.text_sha256(repr([keys, asdict(rig), CODE]))
    manifest = kept(target, root, made_of)
    if manifest is None:
        blocks.mkdir(parents=True, exist_ok=True)
        try:
            shown = _render(sources, rig, blocks, workers, progress)
            manifest = assemble(sources, shown, rig, layout, target)
        except BrokenExecutor as error:
            raise ChildProcessError(
                "a process that rendered has ended: it was killed, or there was not enough memory. "
                f"What was rendered is kept in {blocks}: start again with fewer --workers to go on "
                "from there"
            ) from error
        except ValueError as error:
            raise ValueError("; ".join([str(error), *report(beside)])) from error
        except OSError as error:
            raise OSError(
                f"{error.strerror or error}: {error.filename or root}. What was rendered is kept "
                f"in {blocks}: start again to go on from there, with more space if it was missing"
            ) from error
        manifest |= {"source": str(source), "made_of": made_of, "overlooked": beside}
        files.write_json(part_of(target) / shapenet.MANIFEST, manifest)
        command.put_in_place(part_of(target), target)
    elif manifest.get("overlooked") != beside:
        manifest["overlooked"] = beside
        files.write_json(target / shapenet.MANIFEST, manifest)
    shutil.rmtree(blocks, ignore_errors=True)
    if grey := manifest["grey"]:
        print(f"grey, in part or whole, as a colour is unknown: {some(grey)}", file=sys.stderr)
    return report(manifest["left_out"]) + report(beside)


def _render(
    sources: Sequence[Source], rig: Rig, folder: Path, workers: int | None, progress: bool
) -> Shown:
    """All meshes, block by block; blocks that an earlier run rendered are taken from the folder."""
    shown, shape = Shown(), (rig.views, 4, rig.side, rig.side)
    starts = range(0, len(sources), BLOCK)
    paths = {start: _block(folder, sources[start : start + BLOCK], rig) for start in starts}
    ready = {start: known for start in starts if (known := _ready(paths[start]))}
    jobs = [
        (source, rig)
        for start in starts
        if start not in ready
        for source in sources[start : start + BLOCK]
    ]
    before = len(sources) - len(jobs)
    if before:
        print(f"{before:,} of {len(sources):,} meshes were rendered before", file=sys.stderr)
    bar = tqdm(total=len(sources), initial=before, unit="mesh", disable=not progress)
    with bar, closing(ordered(draw, jobs, workers)) as drawn:
        for start in starts:
            if start not in ready:
                count = len(sources[start : start + BLOCK])
                results = []
                for result in islice(drawn, count):
                    results.append(result)
                    bar.update()
                ready[start] = _keep(paths[start], shape, results)
            shown.add(start, *ready[start])
    return shown


def _block(folder: Path, sources: Sequence[Source], rig: Rig) -> Path:
    keys = [(source.name, source.up, source.stamp) for source in sources]
    content = repr([keys, asdict(rig), CODE])
    return folder / f"block_{files.text_sha256(content)[:16]}.npy"


def _keep(path: Path, shape: tuple[int, ...], results: Sequence[tuple]) -> tuple[np.ndarray, list]:
    pixels = [views for views, _, _ in results if views is not None]
    told = [(reason, coloured) for _, reason, coloured in results]
    sha256 = shards.write(path, (len(pixels), *shape), pixels)
    files.write_json(path.with_suffix(".json"), {"sha256": sha256, "told": told})
    return np.load(path, mmap_mode="c"), told


def _ready(path: Path) -> tuple[np.ndarray, list] | None:
    """A block that is there and whole."""
    try:
        known = files.read_json(path.with_suffix(".json"))
        return shards.mapped(path, known["sha256"]), known["told"]
    except (ValueError, OSError, KeyError, TypeError):
        return None


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(
        "shapenet",
        "Render the views of meshes from a local copy.",
        source="a folder with ShapeNetCore, with an archive of meshes, or with OBJ, PLY, GLB, STL",
        required=True,
    )
    usual = Rig()
    parser.add_argument("--views", type=int, default=usual.views, help="azimuths (default: 16)")
    parser.add_argument("--side", type=int, default=usual.side, help="in pixels (default: 32)")
    parser.add_argument(
        "--elevation", type=float, default=usual.elevation, help="in degrees (default: 20)"
    )
    parser.add_argument(
        "--up", choices=("y", "z"), help="the axis that points upwards, where it is not the usual"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
