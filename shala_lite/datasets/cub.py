"""Birds and sentences about them: a picture and a text of one bird.

``embedded`` draws birds from attributes (``birds``) and writes sentences that mention some of them
(``sentences``). Attribute and nuisance are drawn apart, so that a sentence knows nothing of the
light or of where the bird sits.

``real`` is CUB-200-2011 (Wah et al. 2011) with up to ten captions a photograph (Reed et al. 2016),
as ``data_scripts/cub.py`` prepared it: ``{part}_images.npy`` uint8 (N, 3, 64, 64),
``{part}_labels.npy`` int64 (N,) and ``{part}_captions.json``, a list of captions for each
photograph, for the parts train and test, and ``cub.json`` with their sha256 and origin.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..modalities import Modality
from ..vocabulary import Vocabulary
from . import birds, sentences
from .base import MultimodalDataset

SHAPE = (3, birds.SIDE, birds.SIDE)
MODALITIES = (
    Modality("image", SHAPE),
    Modality("sentence", (sentences.LENGTH,), "text", sentences.VOCABULARY),
)
SIZES = {"train": 10_000, "val": 1_000, "test": 2_000}  # embedded
SENTENCES = {"train": 2, "val": 1, "test": 1}  # of an embedded bird
LABEL = "belly"  # the attribute that is the class of an embedded bird
LENGTH = 32  # words of a real caption
LEAST = 3  # times that a word of the vocabulary occurs in the training captions
VAL_ONE_IN = 10
ARRAYS = "cub_arrays"  # folder under the data root
MANIFEST = "cub.json"  # in that folder; written last
PHOTOGRAPHS = 11_788  # in the whole of CUB-200-2011
CAPTIONS = {
    "original": "the original captions",
    "template": "template captions, which are not the original ones",
    "unstated": "captions of unstated origin",
}

Pair = tuple[int, int]  # positions of a photograph, and of a caption among its captions


def embedded(split: str, size: int | None, seed: int) -> MultimodalDataset:
    """The data set that needs no file: drawn birds, and sentences about each.

    In `train` every bird comes twice, all of them once and then again, with another sentence.

    ``attributes`` holds each name of ``birds.VALUES`` as positions in it, and
    ``mentioned_<name>``: 1 where the sentence says that attribute, 0 where it is silent. The label
    is the colour of the belly, one of eight.
    """
    count = SIZES[split] if size is None else size
    root = np.random.default_rng([seed, zlib.crc32(f"cub/embedded/{split}".encode())])
    for_values, for_pictures, for_sentences = root.spawn(3)
    drawn = -(-count // SENTENCES[split])
    dealt = birds.deal(drawn, for_values)
    again = np.arange(count) % drawn
    pictures = birds.draw(dealt, for_pictures.random((drawn, birds.NUISANCES)))[again]
    values = {name: known[again] for name, known in dealt.items()}
    texts = sentences.describe(values, for_sentences)
    said = sentences.read_off(texts)
    attributes = {name: torch.from_numpy(known) for name, known in values.items()}
    for name, known in said.items():
        attributes[f"mentioned_{name}"] = torch.from_numpy((known >= 0).astype(np.int64))
    return MultimodalDataset(
        modalities=MODALITIES,
        observations={
            "image": torch.from_numpy(pictures),
            "sentence": sentences.VOCABULARY.encode(texts, sentences.LENGTH),
        },
        labels=attributes[LABEL].clone(),
        attributes=attributes,
        name="cub",
        split=split,
        source="embedded",
        note="birds drawn from eight attributes, and sentences that mention two to four of them",
        distinct=drawn if drawn < count else None,
    )


def real(split: str, size: int | None, seed: int, root: Path) -> MultimodalDataset:
    """Photographs and captions that ``data_scripts`` prepared under ``root``.

    The label is the CUB class, its official id less one. One in ten training photographs, in the
    order of the official list, belongs to ``val``. The vocabulary is that of all captions of
    ``train``, whatever the split and the size.

    Args:
        size: how many pairs. None: each photograph once, with one caption. With more pairs than
            photographs, each comes with another caption every time; no pair comes twice.

    Raises:
        FileNotFoundError: where nothing is prepared.
        ValueError: a damaged file, no word that is frequent enough, or more pairs than there are.
    """
    folder = root / ARRAYS
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(
            f"no real CUB under {root}: {folder / MANIFEST} is not there. Prepare it with "
            f"`python -m data_scripts.cub --from DIR --root {root}`, "
            "or name a folder that has it with root= or $SHALA_DATA"
        )
    manifest = read_manifest(folder)
    vocabulary = _vocabulary(folder, manifest)
    part = "test" if split == "test" else "train"
    images = np.load(io.BytesIO(read_checked(folder, f"{part}_images.npy", manifest)))
    labels = np.load(io.BytesIO(read_checked(folder, f"{part}_labels.npy", manifest)))
    captions = json.loads(read_checked(folder, f"{part}_captions.json", manifest))
    members = _members(len(labels), split)
    rng = np.random.default_rng([seed, zlib.crc32(f"cub/real/{split}".encode())])
    pairs = _pairs([len(captions[at]) for at in members], size, rng)
    chosen = members[[item for item, _ in pairs]]
    texts = [captions[at][caption] for at, (_, caption) in zip(chosen, pairs)]
    total = sum(manifest["items"].values())
    return MultimodalDataset(
        modalities=(MODALITIES[0], Modality("sentence", (LENGTH,), "text", vocabulary)),
        observations={
            "image": torch.from_numpy(images[chosen]),
            "sentence": vocabulary.encode(texts, LENGTH),
        },
        labels=torch.from_numpy(labels[chosen]),
        name="cub",
        split=split,
        source="real",
        note=f"CUB-200-2011, {total:,} of its {PHOTOGRAPHS:,} photographs at 64x64, "
        f"with {CAPTIONS[manifest['captions']]}",
        distinct=min(len(members), len(pairs)),
    )


def _members(count: int, split: str) -> NDArray[np.int64]:
    """Positions of a split among the ``count`` photographs of its part."""
    at = np.arange(count)
    held_out = at % VAL_ONE_IN == VAL_ONE_IN // 2  # the list is in the order of the classes
    return at if split == "test" else at[held_out if split == "val" else ~held_out]


def _pairs(captions: list[int], size: int | None, rng: np.random.Generator) -> list[Pair]:
    """Photographs with captions: all photographs once, then all again with another caption.

    Args:
        captions: how many each photograph has.
    """
    size = len(captions) if size is None else size
    if size > sum(captions):
        raise ValueError(
            f"size: there are {sum(captions):,} pairs of a photograph and a caption, "
            f"expected no more, got {size:,}"
        )
    order = [rng.permutation(count) for count in captions]
    pairs: list[Pair] = []
    for turn in range(max(captions, default=0)):
        if len(pairs) >= size:
            break
        items = rng.permutation(len(captions))
        pairs += [(int(i), int(order[i][turn])) for i in items if turn < captions[i]]
    return pairs[:size]


def _vocabulary(folder: Path, manifest: dict[str, Any]) -> Vocabulary:
    captions = json.loads(read_checked(folder, "train_captions.json", manifest))
    members = _members(len(captions), "train")
    try:
        return Vocabulary.of((text for at in members for text in captions[at]), LEAST)
    except ValueError as error:
        raise ValueError(f"{folder}: the training captions have no vocabulary: {error}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the JSON file beside the prepared arrays says.

    Raises:
        ValueError: where it is not such a file.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["sha256"], dict) or not isinstance(manifest["items"], dict):
            raise TypeError("sha256 or items is not an object")
        if manifest["captions"] not in CAPTIONS:
            raise ValueError(f"captions: {manifest['captions']!r}, expected of {list(CAPTIONS)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a manifest of prepared arrays ({error!r})") from error
    return manifest


def read_checked(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """The content of a prepared file.

    Raises:
        ValueError: where it is missing, or is not the one that the manifest describes.
    """
    path = folder / name
    expected = manifest["sha256"].get(name)
    if expected is None or not path.is_file():
        raise ValueError(f"{path}: missing. Remove {folder} and prepare the data again")
    content = path.read_bytes()
    seen = hashlib.sha256(content).hexdigest()
    if seen != expected:
        raise ValueError(
            f"{path}: damaged: its sha256 is {seen}, {MANIFEST} says {expected}. "
            f"Remove {folder} and prepare the data again"
        )
    return content
