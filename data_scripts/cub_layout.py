"""The official layout of CUB-200-2011 with captions: what is in it, and what cannot be used.

``images.txt``, ``train_test_split.txt`` and ``image_class_labels.txt`` give a line to each
photograph, its number first; ``images/<class>/<name>.jpg`` is the photograph and
``text_c10/<class>/<name>.txt`` its captions, one a line. The captions are published apart from
the photographs, so that their folder may lie elsewhere.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from shala_lite import files
from shala_lite.datasets.cub import SHAPE
from shala_lite.vocabulary import words_of

FOLDER = "CUB_200_2011"
TEXT = "text_c10"
LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
PARTS = {"1": "train", "0": "test"}  # as train_test_split.txt has it

NO_FILE = "listed, but there is no such picture"
NO_CAPTIONS = "a picture without captions"
NO_PICTURE = "a file among the captions that is of no listed picture"
NOT_LISTED = "a file among the pictures that images.txt does not list"
NO_NUMBER = "a class or a part of a number that images.txt does not list"
NO_WORD = "a line of captions without a word"
NOT_UTF8 = "bytes in a caption that are no UTF-8, read as a blank"
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
        FileNotFoundError: where neither does, or ``source`` is no folder.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"--from {source}: there is no such folder")
    for folder in (source, source / FOLDER):
        if (folder / "images.txt").is_file():
            return folder
    raise FileNotFoundError(
        f"--from {source}: found images.txt neither in it nor in its folder {FOLDER}"
    )


def find_text(folder: Path, text: Path | None = None) -> Path:
    """The folder of the captions: ``text``, or ``text_c10`` in ``folder`` or beside it.

    Raises:
        FileNotFoundError: where it is not there.
    """
    if text is not None and not text.is_dir():
        raise FileNotFoundError(f"--text {text}: there is no such folder")
    text = text or next((p for p in (folder / TEXT, folder.parent / TEXT) if p.is_dir()), None)
    if text is None:
        raise FileNotFoundError(
            f"no captions: found {TEXT} neither in {folder} nor beside it; name it with --text DIR"
        )
    return text


def digest(folder: Path, text: Path) -> str:
    """sha256 (hex) of the names, sizes and times of all that ``read_layout`` and pixels rest on.

    Where the two folders lie does not count.
    """
    listed = [(path, folder) for path in (folder / name for name in LISTS)]
    listed += [(path, folder) for path in sorted((folder / "images").rglob("*"))]
    listed += [(path, text) for path in sorted(text.rglob("*"))]
    seen: list[tuple[str, int | None, int | None]] = []
    for path, above in listed:
        name = path.relative_to(above).as_posix()
        try:
            known = path.stat()
        except OSError:  # not there, or a link that leads nowhere
            seen.append((name, None, None))
            continue
        if not stat.S_ISDIR(known.st_mode):
            seen.append((name, known.st_size, known.st_mtime_ns))
    return files.text_sha256(repr(seen))


def read_layout(folder: Path, text: Path | None = None) -> Contents:
    """Everything but the pixels.

    Args:
        folder: as ``find_layout`` gives it.
        text: as ``find_text`` has it.

    Raises:
        FileNotFoundError: a list or the folder of captions that is not there.
        ValueError: a line that does not read, a photograph that is listed twice or without class
            or part, or a part without any usable photograph.
    """
    text = find_text(folder, text)
    names, labels, parts = (read_list(folder / name) for name in LISTS)
    first: dict[str, str] = {}
    for number, name in names.items():
        if (other := first.setdefault(name, number)) != number:  # it might be in both parts
            raise ValueError(
                f"{folder / 'images.txt'}: {name} has the numbers {other} and {number}, expected "
                "one for each photograph"
            )
    found = Contents({part: [] for part in PARTS.values()})
    for number, name in names.items():
        label, part = labels.get(number, ""), PARTS.get(parts.get(number, ""))
        if part is None or not label.isdecimal() or int(label) < 1:
            raise ValueError(
                f"{folder / 'images.txt'}: {number} {name}: expected a class from 1 on and a part "
                f"0 or 1, got {labels.get(number)!r} and {parts.get(number)!r}"
            )
        path = folder / "images" / name
        if not path.is_file():
            found.leave_out(NO_FILE, name)
        elif captions := _captions(text, _text_of(name), found):
            found.parts[part].append(Photograph(path, int(label) - 1, captions))
        else:
            found.leave_out(NO_CAPTIONS, name)
    for name, lines in zip(LISTS[1:], (labels, parts), strict=True):
        for number in (n for n in lines if n not in names):
            found.leave_out(NO_NUMBER, f"{name}, {number}")
    texts = {_text_of(name) for name in names.values()}
    for within, listed, reason in (
        (folder / "images", set(names.values()), NOT_LISTED),
        (text, texts, NO_PICTURE),
    ):
        for path in sorted(within.rglob("*")):
            name = path.relative_to(within).as_posix()
            if name not in listed and not path.is_dir():
                found.leave_out(reason, name)
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
        ValueError: a line of another form or that is no UTF-8, or a number that comes twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, expected in the layout of CUB-200-2011")
    found: dict[str, str] = {}
    for row, content in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {row}: expected UTF-8, got {content!r}") from error
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
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return None  # each of these is raised by some damage
    if colour.size != SHAPE[1:]:
        colour = colour.resize(SHAPE[1:], Image.Resampling.BICUBIC)
    return np.asarray(colour).transpose(2, 0, 1)


def _text_of(name: str) -> str:
    return os.path.splitext(name)[0] + ".txt"


def _captions(folder: Path, name: str, found: Contents) -> tuple[str, ...]:
    """The lines of a file that hold a word; others but blank ones go to ``found.left_out``.

    The published files have bytes that are no UTF-8. They become blanks, and are counted by line.
    """
    path, kept = folder / name, []
    if not path.is_file():
        return ()
    for row, content in enumerate(path.read_bytes().splitlines(), start=1):
        line = content.decode("utf-8", errors="replace")
        if line.encode() != content:
            found.leave_out(NOT_UTF8, f"{name}, line {row}")
            line = line.replace("\N{REPLACEMENT CHARACTER}", " ")
        if words_of(line):
            kept.append(line.strip())
        elif line.strip():
            found.leave_out(NO_WORD, f"{name}, line {row}")
    return tuple(kept)
