"""The official layout of CUB-200-2011 with captions: what is in it, and what cannot be used.

``images.txt``, ``train_test_split.txt`` and ``image_class_labels.txt`` give a line to each
photograph, its number first; ``images/<class>/<name>.jpg`` is the photograph and
``text_c10/<class>/<name>.txt`` its captions, one a line. The captions are published apart from
the photographs, so that their folder may lie elsewhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from shala_lite.datasets.cub import SHAPE
from shala_lite.vocabulary import words_of

FOLDER = "CUB_200_2011"
TEXT = "text_c10"
PARTS = {"1": "train", "0": "test"}  # as train_test_split.txt has it

NO_FILE = "listed, but there is no such picture"
NO_CAPTIONS = "a picture without captions"
NO_PICTURE = "captions without a listed picture"
UNREADABLE = "cannot be read as a picture"


@dataclass(frozen=True)
class Photograph:
    """One usable line of ``images.txt``: path, class from 0 on, and captions."""

    path: Path
    label: int
    captions: tuple[str, ...]


@dataclass
class Contents:
    """What the layout holds: photographs by part, and names by the reason they were left out."""

    parts: dict[str, list[Photograph]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Remember that ``name`` is not used, and why."""
        self.left_out.setdefault(reason, []).append(name)


def find_layout(source: Path) -> Path:
    """The folder that holds ``images.txt``: ``source`` or ``CUB_200_2011`` in it.

    Raises:
        FileNotFoundError: where neither does.
    """
    for folder in (source, source / FOLDER):
        if (folder / "images.txt").is_file():
            return folder
    raise FileNotFoundError(
        f"--from {source}: found images.txt neither in it nor in its folder {FOLDER}"
    )


def read_layout(folder: Path, text: Path | None = None) -> Contents:
    """Everything but the pixels.

    Args:
        folder: as ``find_layout`` gives it.
        text: the folder of the captions. None: ``text_c10`` in ``folder`` or beside it.

    Raises:
        FileNotFoundError: a list or the folder of captions that is not there.
        ValueError: a line that does not read, a photograph without class or part, or a part
            without any usable photograph.
    """
    text = text or next((p for p in (folder / TEXT, folder.parent / TEXT) if p.is_dir()), None)
    if text is None or not text.is_dir():
        raise FileNotFoundError(
            f"no captions: found {TEXT} neither in {folder} nor beside it; name it with --text DIR"
        )
    names = read_list(folder / "images.txt")
    labels = read_list(folder / "image_class_labels.txt")
    parts = read_list(folder / "train_test_split.txt")
    found = Contents({part: [] for part in PARTS.values()})
    for number, name in names.items():
        label, part = labels.get(number, ""), PARTS.get(parts.get(number, ""))
        if part is None or not label.isdecimal() or int(label) < 1:
            raise ValueError(
                f"{folder / 'images.txt'}: {number} {name}: expected a class from 1 on and a part "
                f"0 or 1, got {labels.get(number)!r} and {parts.get(number)!r}"
            )
        path, captions = folder / "images" / name, _captions(text / _text_of(name))
        if not path.is_file():
            found.leave_out(NO_FILE, name)
        elif not captions:
            found.leave_out(NO_CAPTIONS, name)
        else:
            found.parts[part].append(Photograph(path, int(label) - 1, captions))
    known = {_text_of(name) for name in names.values()}
    for path in sorted(text.glob("*/*.txt")):
        name = path.relative_to(text).as_posix()
        if name not in known:
            found.leave_out(NO_PICTURE, name)
    check_parts(found, folder)
    return found


def check_parts(found: Contents, folder: Path) -> None:
    """Raise ValueError where a part has no photograph, saying what was left out."""
    for part, photographs in found.parts.items():
        if not photographs:
            why = "; ".join(report(found)) or "none is listed"
            raise ValueError(f"{folder}: no usable photograph for {part}: {why}")


def report(found: Contents) -> list[str]:
    """A line for each reason: how many were left out, and the first of them."""
    return [f"{len(n):,} x {reason} ({n[0]})" for reason, n in found.left_out.items()]


def read_list(path: Path) -> dict[str, str]:
    """The lines ``<number> <value>`` of a file.

    Raises:
        FileNotFoundError: where it is not there.
        ValueError: a line of another form, or a number that comes twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, expected in the layout of CUB-200-2011")
    found: dict[str, str] = {}
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[0] in found:
            raise ValueError(f"{path}, line {row}: expected a new number and a value, got {line!r}")
        found[words[0]] = words[1]
    return found


def read_picture(path: Path) -> np.ndarray | None:
    """A photograph (3, 64, 64) uint8, the whole of it, squeezed; None where it does not decode."""
    try:
        with Image.open(path) as picture:
            colour = picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        return None
    if colour.size != SHAPE[1:]:
        colour = colour.resize(SHAPE[1:], Image.Resampling.BICUBIC)
    return np.asarray(colour).transpose(2, 0, 1)


def _text_of(name: str) -> str:
    return os.path.splitext(name)[0] + ".txt"


def _captions(path: Path) -> tuple[str, ...]:
    """The lines that hold a word. The published files have bytes that are no UTF-8."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if words_of(line))
