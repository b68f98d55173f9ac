"""Prepare the real MNIST-SVHN-Text for ``load_dataset("mst", ..., source="real")``.

    python -m data_scripts.mst               # MNIST and SVHN, from public addresses (0.3 GB)
    python -m data_scripts.mst --from DIR    # local copies, in DIR or in DIR/mnist and DIR/svhn

MNIST's idx files come to lie in ``mnist/`` and SVHN's cropped digits, ``train_32x32.mat`` and
``test_32x32.mat``, in ``svhn/``. The words need no file. The library pairs all three by label.

MNIST's files are known by the md5 of their decompressed content, SVHN's by that of the file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data_scripts import command
from data_scripts.download import copy, download
from data_scripts.mnist import prepare_mnist
from shala_lite.datasets.svhn import SVHN_MD5, check_svhn, parse_svhn

SVHN_MIRRORS = ("http://ufldl.stanford.edu/housenumbers/",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0 where the data are ready."""
    told = "Prepare the real MNIST-SVHN-Text: MNIST's and SVHN's digits."
    options = command.parser("mst", told).parse_args(arguments)

    def prepared(root: Path) -> list[str]:
        prepare(root, options.source, not options.quiet)
        return []

    return command.run("mst", options.root, prepared)


def prepare(root: Path, source: Path | None = None, progress: bool = True) -> None:
    """MNIST's four files into ``root/mnist`` and SVHN's two into ``root/svhn``.

    Args:
        root: the data root.
        source: a folder with local copies. None: public addresses.
        progress: whether to show progress bars.

    Raises:
        FileNotFoundError: where ``source`` lacks a file.
        ValueError: where content is not what it should be.
        DownloadError: where no public address gave a file.
    """
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"--from {source}: there is no such folder")
    prepare_mnist(root, source, progress)
    for name in SVHN_MD5:
        target = root / "svhn" / name
        if source is None:
            urls = [f"{mirror}{name}" for mirror in SVHN_MIRRORS]
            download(urls, target, _check_mat(name), progress=progress)
            continue
        found = next((p for p in (source / "svhn" / name, source / name) if p.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"--from {source}: {name} is neither in it nor in svhn/")
        copy(found, target, _check_mat(name))


def _check_mat(name: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        content = path.read_bytes()
        parse_svhn(content, path)  # says more about a truncated file than a checksum does
        check_svhn(name, content, path)

    return check


if __name__ == "__main__":
    sys.exit(main())
