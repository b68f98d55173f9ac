"""Prepare the real PolyMNIST for ``load_dataset("polymnist", ..., source="real")``.

    python -m data_scripts.polymnist                        # the published archive, from Zenodo
    python -m data_scripts.polymnist --from DIR             # whatever of the two DIR holds
    python -m data_scripts.polymnist --kind recipe --pictures DIR    # MNIST, and your pictures

Two kinds of data can be prepared. ``archive`` is the published set: its PNG files become arrays in
``polymnist_arrays/``. ``recipe`` is what those were made of: MNIST's idx files in ``mnist/`` and
five background pictures in ``polymnist_backgrounds/``; the library composes sets from them.

MNIST's files are known by the md5 of their decompressed content. How the archive is checked stands
in ``polymnist_archive``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data_scripts import command
from data_scripts.download import copy
from data_scripts.mnist import find_idx, prepare_mnist
from data_scripts.polymnist_archive import NAME, find_archive, prepare_archive
from shala_lite.datasets import archive
from shala_lite.datasets.idx import MNIST_MD5
from shala_lite.datasets.polymnist import PICTURE_SUFFIXES, PICTURES, read_picture, read_pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0 where the data are ready."""
    options = _parser().parse_args(arguments)

    def prepared(root: Path) -> list[str]:
        prepare(root, options.source, options.pictures, options.kind, not options.quiet)
        return []

    return command.run("polymnist", options.root, prepared)


def prepare(
    root: Path,
    source: Path | None = None,
    pictures: Path | None = None,
    kind: str = "auto",
    progress: bool = True,
) -> None:
    """Prepare one kind of data under ``root``.

    Args:
        root: the data root.
        source: a folder with local copies, or the archive's zip file. None: public addresses.
        pictures: the folder with five background pictures, for ``recipe``.
        kind: ``archive``, ``recipe``, or ``auto``: what ``source`` holds, the archive first;
            without a source ``recipe`` where ``pictures`` are given, else ``archive``.
        progress: whether to show progress bars.

    Raises:
        FileNotFoundError: where ``source`` lacks what is needed.
        ValueError: where content is not what it should be.
        DownloadError: where no public address gave a file.
    """
    if source is not None and not source.exists():
        raise FileNotFoundError(f"--from {source}: there is no such folder or file")
    if kind == "auto":
        kind = _guess_kind(source, pictures)
    if kind == "archive":
        prepare_archive(root, source, progress)
    else:
        prepare_recipe(root, source, pictures, progress)


def _guess_kind(source: Path | None, pictures: Path | None) -> str:
    if source is None:
        return "archive" if pictures is None else "recipe"
    if find_archive(source) is not None:
        return "archive"
    if any(find_idx(source, stem) for stem in MNIST_MD5):
        return "recipe"
    raise FileNotFoundError(
        f"--from {source}: found neither the archive ({NAME}, or its folders "
        f"train/m0 ... test/m4) nor MNIST's idx files (in it or in its folder mnist/)"
    )


def prepare_recipe(
    root: Path, source: Path | None, pictures: Path | None, progress: bool = True
) -> None:
    """MNIST's four files into ``root/mnist`` and five pictures into their folder."""
    if (root / archive.ARRAYS).exists():
        raise ValueError(
            f"{root / archive.ARRAYS} would hide what is prepared here: the archive comes first. "
            "Use another --root"
        )
    prepare_mnist(root, source, progress)
    _place_pictures(root / PICTURES, _find_pictures(root, source, pictures))


def _find_pictures(root: Path, source: Path | None, pictures: Path | None) -> Path:
    if pictures is not None:
        return pictures
    if source is not None and (source / PICTURES).is_dir():
        return source / PICTURES
    if (root / PICTURES).is_dir():
        return root / PICTURES
    raise FileNotFoundError(
        "the recipe needs five background pictures, which no public address offers on their "
        f"own: name a folder that holds five with --pictures, or put them into {root / PICTURES}"
    )


def _place_pictures(target: Path, folder: Path) -> None:
    names = read_pictures(folder)  # five, and each can be decoded
    present = target.iterdir() if target.is_dir() else ()
    odd = {path.name for path in present if path.suffix.lower() in PICTURE_SUFFIXES} - names.keys()
    if odd:
        raise ValueError(
            f"{target} already holds {', '.join(sorted(odd))}, which {folder} does not: "
            "the order of names decides which picture is m0. Remove one or the other"
        )
    for name in names:
        content = (folder / name).read_bytes()
        copy(folder / name, target / name, _same_picture(content))


def _same_picture(content: bytes) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if path.read_bytes() != content:
            raise ValueError(f"{path}: not the same bytes as the picture it is a copy of")
        read_picture(path)

    return check


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(
        "polymnist", "Prepare the real PolyMNIST: the published archive, or MNIST and pictures."
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="five background pictures for the recipe"
    )
    parser.add_argument("--kind", choices=("auto", "archive", "recipe"), default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(main())
