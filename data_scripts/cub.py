"""Prepare CUB-200-2011 with captions for ``load_dataset("cub", ..., source="real")``.

    python -m data_scripts.cub --from DIR --captions original
    python -m data_scripts.cub --from DIR --captions template    # not the published captions

``DIR`` holds the official layout (see ``cub_layout``); the data may not be passed on, so there is
no public address to fetch them from. The photographs become arrays in ``cub_arrays/``, 64x64
pixels each. A run that is interrupted goes on where it stopped. What cannot be used is left out,
counted and named by reason, here and in ``cub.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_scripts import command
from data_scripts.cub_layout import (
    UNREADABLE,
    Contents,
    Photograph,
    check_parts,
    digest,
    find_layout,
    find_text,
    read_layout,
    read_picture,
    report,
)
from shala_lite.datasets import cub

BLOCK = 500  # photographs decoded at a time; at most so many are lost when a run is killed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0 where the data are ready."""
    options = _parser().parse_args(arguments)
    told = (options.source, options.text, options.captions, not options.quiet)
    resumes = "goes on where this one stopped"
    return command.run("cub", options.root, lambda root: prepare(root, *told), resumes)


def prepare(
    root: Path,
    source: Path,
    text: Path | None = None,
    captions: str | None = None,
    progress: bool = True,
) -> list[str]:
    """The layout in ``source`` as arrays in ``root/cub_arrays``.

    Arrays that are there, whole, and made of the same files are kept, unless ``captions`` says
    otherwise than they do. Others are replaced only once the new ones are complete.

    Args:
        root: the data root.
        source: a folder with the official layout, or with ``CUB_200_2011`` in it.
        text: the folder of the captions. None: where ``find_text`` looks.
        captions: which they are, one of ``cub.CAPTIONS``: nobody can tell from the files.
            None: unstated.
        progress: whether to show a progress bar.

    Returns:
        For each reason why something was left out, a line that counts.

    Raises:
        FileNotFoundError: where ``source`` lacks what is needed.
        ValueError: where content is not what it should be, or nothing of it can be used.
    """
    target = root / cub.ARRAYS
    folder = find_layout(source)
    text = find_text(folder, text)
    made_of = digest(folder, text)
    if _kept(target, captions, made_of):
        return report(Contents(left_out=cub.read_manifest(target)["left_out"]))
    found = read_layout(folder, text)
    part = target.with_name(target.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    for split in found.parts:
        names |= _write_part(part, split, found, folder, progress)
    manifest = {
        "source": str(folder),
        "captions": captions or "unstated",
        "items": {split: len(photographs) for split, photographs in found.parts.items()},
        "left_out": found.left_out,
        "made_of": made_of,
        "sha256": names,
    }
    content = json.dumps(manifest, indent=2) + "\n"
    (part / cub.MANIFEST).write_text(content, encoding="utf-8")
    for block in part.glob("block_*"):
        block.unlink()
    command.put_in_place(part, target)
    return report(found)


def _write_part(
    part: Path, split: str, found: Contents, folder: Path, progress: bool
) -> dict[str, str]:
    """Three files of one split; photographs that do not decode go to ``found.left_out``."""
    listed, images, kept = found.parts[split], [], []
    with tqdm(desc=split, total=len(listed), unit="image", disable=not progress) as bar:
        for start in range(0, len(listed), BLOCK):
            block = listed[start : start + BLOCK]
            pixels, good = _block(part, block)
            images.append(pixels)
            for photograph, decoded in zip(block, good):
                if decoded:
                    kept.append(photograph)
                else:
                    name = photograph.path.relative_to(folder / "images").as_posix()
                    found.leave_out(UNREADABLE, name)
            bar.update(len(block))
    found.parts[split] = kept
    check_parts(found, folder)
    np.save(part / f"{split}_images.npy", np.concatenate(images))
    np.save(part / f"{split}_labels.npy", np.array([p.label for p in kept], np.int64))
    captions = json.dumps([list(p.captions) for p in kept])
    (part / f"{split}_captions.json").write_text(captions, encoding="utf-8")
    names = (f"{split}_images.npy", f"{split}_labels.npy", f"{split}_captions.json")
    return {name: _sha256(part / name) for name in names}


def _block(part: Path, block: Sequence[Photograph]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the photographs that decode, and for each of the block whether it does.

    A block that an earlier run decoded from the same files is read back.
    """
    files = [(str(p.path), p.path.stat().st_size, p.path.stat().st_mtime_ns) for p in block]
    path = part / f"block_{hashlib.sha256(repr(files).encode()).hexdigest()[:16]}.npz"
    if path.is_file():
        with np.load(path) as saved:
            return saved["pixels"], saved["good"]
    read = [read_picture(p.path) for p in block]
    good = np.array([image is not None for image in read])
    shown = [image for image in read if image is not None]
    pixels = np.stack(shown) if shown else np.empty((0, *cub.SHAPE), np.uint8)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        np.savez(file, pixels=pixels, good=good)
    os.replace(unfinished, path)
    return pixels, good


def _kept(folder: Path, captions: str | None, made_of: str) -> bool:
    """Whether the arrays are whole, made of the same files, and with these captions if any."""
    try:
        manifest = cub.read_manifest(folder)
        if manifest.get("made_of") != made_of or captions not in (None, manifest["captions"]):
            return False
        whole = all(_sha256(folder / name) == seen for name, seen in manifest["sha256"].items())
    except (ValueError, OSError):
        return False
    return whole and manifest["sha256"] != {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(
        "cub",
        "Prepare CUB-200-2011 with captions from a local copy.",
        source="a folder with images.txt, or with CUB_200_2011 in it",
        required=True,
    )
    parser.add_argument(
        "--text", type=Path, metavar="DIR", help="text_c10, where it lies neither there nor beside"
    )
    parser.add_argument(
        "--captions",
        choices=tuple(cub.CAPTIONS),
        help="which captions these are: it is written down and shown with every result",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
