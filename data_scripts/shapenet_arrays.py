"""The arrays of rendered meshes: how splits are put together, kept, and told of."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_scripts.shapenet_meshes import Source
from data_scripts.shapenet_splits import ALIKE, SHARES, deal_splits, merge_alike
from shala_lite.datasets import shapenet, shards
from shala_lite.datasets.cameras import Rig

TOLD = 5  # names in a line of the report
CHAPTER = "09_shapenet_views"
LEAST_VIEWS = 2  # that the chapter can do with


class Shown:
    """What became of the meshes: views of each as rows of mapped blocks, and what is said of it."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.rows: dict[int, tuple[int, int]] = {}  # of a mesh: its block, and its row there
        self.reasons: dict[int, str] = {}  # why it was left out
        self.grey: list[int] = []

    def add(self, first: int, pixels: np.ndarray, told: Sequence[tuple[str, bool]]) -> None:
        """Remember a block, whose first mesh has the position ``first``."""
        row = 0
        for at, (reason, coloured) in enumerate(told, start=first):
            if reason:
                self.reasons[at] = reason
            else:
                self.rows[at] = (len(self.blocks), row)
                row += 1
                self.grey += [] if coloured else [at]
        self.blocks.append(pixels)

    def pixels(self, at: int) -> np.ndarray:
        """The views of a mesh, (M, 4, side, side)."""
        block, row = self.rows[at]
        return self.blocks[block][row]


def assemble(
    sources: Sequence[Source], shown: Shown, rig: Rig, layout: str, target: Path
) -> dict[str, Any]:
    """The array of each split in a folder beside ``target``; returns the manifest.

    Raises:
        ValueError: where no mesh can be used, or too few differ.
    """
    left_out: dict[str, list[str]] = {}
    for at, reason in shown.reasons.items():
        left_out.setdefault(reason, []).append(sources[at].name)
    usable = list(shown.rows)
    if not usable:
        why = "; ".join(report(left_out))
        raise ValueError(f"none of {len(sources):,} meshes can be used: {why}")
    labels = [sources[at].category for at in usable]
    named = [sources[at].family for at in usable]
    families = merge_alike(
        named, labels, lambda k: shown.pixels(usable[k])[:, 3], tolerance=ALIKE[layout]
    )
    splits = deal_splits(families, labels)
    categories = sorted(set(labels))
    part = part_of(target)
    part.mkdir(parents=True, exist_ok=True)
    items, sha256 = {}, {}
    for split in SHARES:
        own = [k for k, given in enumerate(splits) if given == split]
        own = [own[k] for k in np.random.default_rng(0).permutation(len(own))]
        items[split] = {
            "names": [sources[usable[k]].name for k in own],
            "labels": [categories.index(labels[k]) for k in own],
            "families": [families[k] for k in own],
        }
        shape = (len(own), rig.views, 4, rig.side, rig.side)
        rows: Iterator[np.ndarray] = (shown.pixels(usable[k]) for k in own)
        sha256[split] = shards.write(part / f"{split}_views.npy", shape, rows)
    return {
        "layout": layout,
        "rig": asdict(rig),
        "categories": categories,
        "items": items,
        "sha256": sha256,
        "left_out": left_out,
        "grey": [sources[at].name for at in shown.grey],
    }


def part_of(target: Path) -> Path:
    """The folder beside ``target`` in which the new arrays grow."""
    return target.with_name(f"{target.name}.part")


def kept(folder: Path, root: Path, made_of: str) -> dict[str, Any] | None:
    """The manifest of arrays that are whole and made of the same; None where there are none."""
    try:
        manifest = shapenet.read_manifest(folder, root)
        for split, sha256 in manifest["sha256"].items():
            shards.mapped(folder / f"{split}_views.npy", sha256)
    except (ValueError, OSError):
        return None
    return manifest if manifest.get("made_of") == made_of else None


def report(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each reason: how many were left out, and the first of them."""
    return [f"{reason}: {some(names)}" for reason, names in left_out.items()]


def some(names: Sequence[str]) -> str:
    """How many names there are, and the first ``TOLD``."""
    more = f" and {len(names) - TOLD:,} more" if len(names) > TOLD else ""
    return f"{len(names):,} ({', '.join(names[:TOLD])}{more})"


def sizes(root: Path, name: str) -> list[str]:
    """How many objects each split has, and the command that runs the chapter on all of them."""
    manifest = shapenet.read_manifest(root / shapenet.arrays(name), root)
    counts = {split: len(manifest["items"][split]["labels"]) for split in SHARES}
    told = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    if manifest["rig"]["views"] < LEAST_VIEWS:
        return [f"Objects: {told}. The chapter {CHAPTER} needs --views {LEAST_VIEWS} or more."]
    given: dict[str, object] = {"source": "real", "root": root.absolute()}
    if name != "shapenet":
        given["dataset"] = name
    given |= {"train_size": counts["train"], "test_size": counts["test"]}
    words = [word for key, value in given.items() for word in ("-p", key, str(value))]
    command = ["python", "-m", "shala_lite", "run", CHAPTER, "--profile", "laptop", *words]
    return [f"Objects: {told}. The chapter on all of them:", f"    {shlex.join(command)}"]
