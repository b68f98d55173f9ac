"""Large uint8 arrays in files: written row by row, checked by sha256, and mapped, not read.

A mapped array is copied into memory page by page where it is looked at, so that it may be larger
than the memory. What is written to it stays in memory: the file does not change.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def write(path: Path, shape: tuple[int, ...], rows: Iterable[Bytes]) -> str:
    """A ``.npy`` file of that shape (N, ...) from its rows, in order; returns its sha256 (hex).

    The file appears under its name once it is whole. One process at a time may write it.

    Raises:
        OSError: where it cannot be written.
        ValueError: rows of another shape or dtype, or another number of them.
    """
    header, count = io.BytesIO(), 0
    form = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, form)
    digest = hashlib.sha256(header.getvalue())
    unfinished = path.with_name(f"{path.name}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(header.getvalue())
            for row in rows:
                if row.shape != tuple(shape[1:]) or row.dtype != np.uint8:
                    raise ValueError(f"rows: {row.shape} {row.dtype}, expected {shape[1:]} uint8")
                content = np.ascontiguousarray(row).data
                file.write(content)
                digest.update(content)
                count += 1
            if count != shape[0]:
                raise ValueError(f"rows: there are {count}, expected {shape[0]}")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return digest.hexdigest()


def mapped(path: Path, sha256: str) -> Bytes:
    """The array in a file that ``write`` wrote, mapped into memory.

    Raises:
        ValueError: where the file is missing, or its sha256 is another.
    """
    if not path.is_file():
        raise ValueError(f"{path}: missing")
    with path.open("rb") as file:
        seen = hashlib.file_digest(file, "sha256").hexdigest()
    if seen != sha256:
        raise ValueError(f"{path}: damaged: its sha256 is {seen}, expected {sha256}")
    return np.load(path, mmap_mode="c")


def cached(path: Path, shape: tuple[int, ...], rows: Callable[[], Iterable[Bytes]]) -> Bytes:
    """The array of these rows: mapped from ``path`` if it is there, and else made and kept.

    Its sha256 lies beside it. One process makes it while others wait for it. A damaged file is
    made anew, with a warning. Where nothing can be kept, on a full disk say, the array is made in
    memory, with a warning too.
    """
    found = _whole(path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"waiting for {path.name}, which another process makes", file=sys.stderr)
            lock.acquire()
        try:
            found = _whole(path)
            if found is None:
                if path.exists():
                    warnings.warn(f"{path} is damaged; it is made anew", stacklevel=2)
                digest = write(path, shape, rows())
                beside = path.with_suffix(".tmp")
                beside.write_text(digest)
                os.replace(beside, path.with_suffix(".sha256"))
                found = np.load(path, mmap_mode="c")
            return found
        finally:
            lock.release()
    except OSError as error:
        warnings.warn(f"{path} cannot be kept ({error}); it is made in memory", stacklevel=2)
        return np.stack(list(rows()))


def _whole(path: Path) -> Bytes | None:
    try:
        return mapped(path, path.with_suffix(".sha256").read_text())
    except (ValueError, OSError):
        return None
