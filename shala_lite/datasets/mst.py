"""MNIST-SVHN-Text: a handwritten digit, a street number and a word that share their label.

For every item each modality draws another source of its label, independently: class-wise random
permutations hand pictures out, so that each is used as often as any other of its class, give or
take one. The word is the English name of the digit at a uniformly random offset among eight
letters, with blanks elsewhere. (Sutter, Daunhawer and Vogt 2020, arXiv 2006.08242.)

``embedded`` takes scikit-learn's digits and draws the street numbers, a new one for every item;
``real`` takes MNIST and SVHN from under a data root. Train, val and test share no picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modalities import Modality
from ..vocabulary import Vocabulary
from .base import MultimodalDataset
from .digits import embedded_scans
from .idx import read_mnist
from .pairing import deal, distinct, draw_labels, generator, part_of
from .street import draw_streets
from .svhn import read_svhn

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTH = 8
LETTERS = Vocabulary((" ", *sorted(set("".join(WORDS)))), "")
MODALITIES = (
    Modality("digit", (1, 28, 28)),
    Modality("street", (3, 32, 32)),
    Modality("word", (LENGTH,), "text", LETTERS),
)
# The literature pairs each real scan twenty times, which is size=1_100_000 and 4.3 GB.
SIZES = {
    "embedded": {"train": 10_000, "val": 2_000, "test": 2_000},
    "real": {"train": 60_000, "val": 5_000, "test": 10_000},
}

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def words(labels: Labels, rng: np.random.Generator) -> list[str]:
    """The name of each digit (N,) at a random offset among eight letters, blanks elsewhere."""
    names = [WORDS[label] for label in labels]
    places = rng.integers([LENGTH - len(name) + 1 for name in names])
    return [(" " * place + name).ljust(LENGTH) for name, place in zip(names, places)]


def read_word(texts: Sequence[str]) -> Tensor:
    """The digit (N,) int64 that each text names, but for blanks around it; -1 where it is none."""
    digits = {name: digit for digit, name in enumerate(WORDS)}
    return torch.tensor([digits.get(text.strip(" "), -1) for text in texts], dtype=torch.int64)


def offsets(texts: Sequence[str]) -> Tensor:
    """How many blanks (N,) int64 each text begins with; -1 where it is blank."""
    found = [len(text) - len(text.lstrip(" ")) if text.strip(" ") else -1 for text in texts]
    return torch.tensor(found, dtype=torch.int64)


def embedded(split: str, size: int | None, seed: int) -> MultimodalDataset:
    """The data set that needs no file: scikit-learn's digits, drawn street numbers, words.

    Its attributes are the word's ``offset`` and the ``font`` of the street number, a position in
    ``street.FONTS``.
    """
    scans, labels = embedded_scans(split)
    rng = generator("mst", "embedded", split, seed)
    drawn = draw_labels(labels, SIZES["embedded"][split] if size is None else size, rng)
    chosen = deal(labels, drawn, rng)
    streets, styles = draw_streets(drawn, rng)
    return MultimodalDataset(
        **_fields(scans[chosen], streets, drawn, rng, {"font": styles["font"]}),
        name="mst",
        split=split,
        source="embedded",
        note="scikit-learn's digits, drawn street numbers and the digits' names",
        distinct=distinct(chosen),
    )


def real(split: str, size: int | None, seed: int, root: Path) -> MultimodalDataset:
    """MNIST's idx files from ``root/mnist`` and SVHN's cropped digits from ``root/svhn``.

    The last one in twelve of the training pictures, 5,000 of MNIST and 6,104 of SVHN, belong to
    ``val``. The word's ``offset`` is an attribute.

    Raises:
        FileNotFoundError: naming what is missing and how to prepare it.
        ValueError: where a file is not what it should be.
    """
    part = "test" if split == "test" else "train"
    try:
        scans, digits = read_mnist(root / "mnist", "t10k" if part == "test" else part)
        streets, numbers = read_svhn(root / "svhn", part)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no real MNIST-SVHN-Text under {root}: {error}. Prepare it with "
            f"`python -m data_scripts.mst --root {root}`, "
            "or name a folder that has it with root= or $SHALA_DATA"
        ) from error
    own = part_of(split, len(scans))
    scans, digits = scans[own], digits[own]
    own = part_of(split, len(streets))
    streets, numbers = streets[own], numbers[own]
    rng = generator("mst", "real", split, seed)
    drawn = draw_labels(digits, SIZES["real"][split] if size is None else size, rng)
    chosen = [deal(labels, drawn, rng) for labels in (digits, numbers)]
    return MultimodalDataset(
        **_fields(scans[chosen[0]], streets[chosen[1]], drawn, rng, {}),
        name="mst",
        split=split,
        source="real",
        note="MNIST, SVHN's cropped digits and the digits' names",
        distinct=distinct(*chosen),
    )


def _fields(
    scans: Images,
    streets: Images,
    labels: Labels,
    rng: np.random.Generator,
    known: dict[str, NDArray[np.int64]],
) -> dict:
    """Observations, labels and attributes of items whose pictures are chosen."""
    texts = words(labels, rng)
    return {
        "modalities": MODALITIES,
        "observations": {
            "digit": torch.from_numpy(scans[:, None]),
            "street": torch.from_numpy(streets),
            "word": LETTERS.encode(texts, LENGTH),
        },
        "labels": torch.from_numpy(labels),
        "attributes": {
            "offset": offsets(texts),
            **{name: torch.from_numpy(values) for name, values in known.items()},
        },
    }
