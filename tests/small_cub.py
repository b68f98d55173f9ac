"""A small folder in the official layout of CUB-200-2011 with captions, for the tests to read."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 3
EACH = 20  # photographs a class: even ones are for training
CAPTIONS = 4


def name_of(number: int) -> str:
    """``<class>/<name>`` of a photograph, without its suffix."""
    kind = number // EACH + 1
    return f"{kind:03d}.Kind_{kind}/Kind_{kind}_{number:04d}"


def colour_of(number: int) -> tuple[int, int, int]:
    return (40 + 60 * (number // EACH), 4 * number, 255 - 4 * number)


def captions_of(number: int, count: int = CAPTIONS) -> list[str]:
    """Captions that name their photograph and their own number."""
    return [f"A bird numbered p{number}, said c{k}; unique{number}x{k}." for k in range(count)]


def write_cub(folder: Path, size=(80, 60), captions: int = CAPTIONS) -> Path:
    """Photographs of one colour each, ``size`` pixels, with captions; returns ``folder``."""
    numbers = range(CLASSES * EACH)
    for number in numbers:
        picture = folder / "images" / f"{name_of(number)}.jpg"
        text = folder / "text_c10" / f"{name_of(number)}.txt"
        for path in (picture, text):
            path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((size[1], size[0], 3), colour_of(number), np.uint8)
        Image.fromarray(pixels).save(picture, quality=95)
        text.write_text("\n".join(captions_of(number, captions)) + "\n\n", encoding="utf-8")
    lists = {
        "images.txt": [f"{n + 1} {name_of(n)}.jpg" for n in numbers],
        "train_test_split.txt": [f"{n + 1} {1 - n % 2}" for n in numbers],
        "image_class_labels.txt": [f"{n + 1} {n // EACH + 1}" for n in numbers],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
