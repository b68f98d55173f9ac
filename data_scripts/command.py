"""What the scripts have in common: options, a lock, messages, and how arrays are put into place."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from data_scripts.download import DownloadError
from shala_lite.datasets import data_root, load_dataset

COPIES = "read local copies here instead of public addresses"


def parser(
    name: str, description: str, *, source: str = COPIES, required: bool = False
) -> argparse.ArgumentParser:
    """The options of every script: ``--root``, ``--from`` and ``--quiet``.

    Args:
        name: the data set.
        description: what the script prepares.
        source: what ``--from`` is for.
        required: whether it must be given, as there is no public address.
    """
    found = argparse.ArgumentParser(prog=f"python -m data_scripts.{name}", description=description)
    found.add_argument(
        "--root",
        type=Path,
        help="where to put the data (default: $SHALA_DATA, else the user's cache folder)",
    )
    found.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", required=required, help=source
    )
    found.add_argument("--quiet", action="store_true", help="no progress bars")
    return found


def run(
    name: str,
    root: Path | None,
    prepare: Callable[[Path], Sequence[str]],
    resumes: str = "continues a download where it stopped",
    closing: Callable[[Path], Iterable[str]] = lambda root: (),
) -> int:
    """Prepare a data set under a lock and load an item of it; the exit status is 0 if it is there.

    Args:
        name: the data set.
        root: as given on the command line; None is ``data_root()``.
        prepare: does it under the root it is given, and returns lines that say what was left out.
        resumes: what the next run does after an interruption.
        closing: lines to print last, about what is now under the root.
    """
    root = data_root(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock", timeout=0):
            left_out = prepare(root)
        ready = load_dataset(name, "test", source="real", root=root, size=1)
        last = list(closing(root))
    except Timeout:
        return _fail(f"another process is preparing the data under {root}")
    except (DownloadError, ValueError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail(f"interrupted; the next run {resumes}")
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(f"Ready under {root}: {ready.note}.")
    print(f'Use: load_dataset("{name}", "train", source="real", root="{root}"),')
    print(f"or set SHALA_DATA={root} and leave root away.")
    for line in last:
        print(line)
    return 0


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def put_in_place(part: Path, target: Path) -> None:
    """Rename a finished folder to ``target``; what was there goes only once the new one is."""
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(part, target)
    shutil.rmtree(old, ignore_errors=True)
