"""MNIST's four idx files, which several data sets are made of.

They are known by the md5 of their decompressed content.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from data_scripts.download import copy, download
from shala_lite.datasets.idx import MNIST_MD5, check_mnist, find_mnist, parse_idx, read_bytes

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def prepare_mnist(root: Path, source: Path | None, progress: bool = True) -> None:
    """MNIST's four files into ``root/mnist``, from ``source`` or from public addresses.

    Raises:
        filelock.Timeout: where another process, for another data set maybe, is doing so.
        FileNotFoundError: where ``source`` lacks one.
        ValueError: where content is not what it should be.
        DownloadError: where no public address gave a file.
    """
    with FileLock(root / ".mnist.lock", timeout=0):
        for stem in MNIST_MD5:
            if source is None:
                urls = [f"{mirror}{stem}.gz" for mirror in MNIST_MIRRORS]
                target = root / "mnist" / f"{stem}.gz"
                download(urls, target, _check_idx(stem), progress=progress)
                continue
            found = find_idx(source, stem)
            if found is None:
                raise FileNotFoundError(
                    f"--from {source}: {stem}.gz is neither in it nor in mnist/"
                )
            copy(found, root / "mnist" / found.name, _check_idx(stem))


def find_idx(source: Path, stem: str) -> Path | None:
    """The file ``stem`` in ``source`` or in its folder mnist/; None where there is neither."""
    return find_mnist(source / "mnist", stem) or find_mnist(source, stem)


def _check_idx(stem: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        content = read_bytes(path)
        parse_idx(content, path)  # says more about a truncated file than a checksum does
        check_mnist(stem, content, path)

    return check
