"""The published archive of PolyMNIST, from Zenodo or a local copy, as arrays.

Zenodo states an md5 of the archive, which is asked for when the download begins. Beyond that, the
zip file's CRC-32 of each member is verified as it is read, and the items are counted. No checksum
of the archive is written down here, since none was verified.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pooch
import requests
from tqdm import tqdm

from data_scripts.command import put_in_place
from data_scripts.download import download
from shala_lite.datasets import archive

DOI = "10.5281/zenodo.4899160"
NAME = "PolyMNIST.zip"
URL = f"https://zenodo.org/records/4899160/files/{NAME}?download=1"
ITEMS = {"train": 60_000, "test": 10_000}  # that the archive must hold


def prepare_archive(root: Path, source: Path | None, progress: bool = True) -> None:
    """The published archive as arrays in ``root/polymnist_arrays``.

    Arrays that are there and whole are kept. Others are replaced only once the new ones are
    complete.
    """
    target = root / archive.ARRAYS
    if (target / archive.MANIFEST).is_file() and _whole(target):
        return
    found = find_archive(source) if source is not None else _fetch_archive(root, progress)
    if found is None:
        raise FileNotFoundError(
            f"--from {source}: found neither {NAME} nor folders train/m0 ... test/m4"
        )
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if found.is_dir():
        index = archive.index_folder(found)
        _write_arrays(part, index, lambda name: (found / name).read_bytes(), found.name, progress)
    else:
        with _open_zip(found) as zipped:
            index = archive.index_names(zipped.namelist(), found)
            _write_arrays(part, index, zipped.read, found.name, progress)
    put_in_place(part, target)


def _fetch_archive(root: Path, progress: bool) -> Path:
    known_hash = published_checksum()
    if known_hash is None:
        print(
            "Zenodo did not state the archive's md5; the CRC-32 of each file in it is verified.",
            file=sys.stderr,
        )
    target = root / NAME
    return download([URL], target, _check_zip, known_hash=known_hash, progress=progress)


def published_checksum() -> str | None:
    """The archive's checksum as Zenodo states it now (``"md5:..."``); None where it does not."""
    record = pooch.create(path=".", base_url=f"doi:{DOI}/", registry=None)
    try:
        record.load_registry_from_doi()
        return record.registry[NAME]
    except (requests.RequestException, ValueError, LookupError):
        return None


def find_archive(source: Path) -> Path | None:
    """The zip file or the folder that holds ``train`` and ``test``; None where there is none."""
    if source.is_file():
        return source
    if (source / NAME).is_file():
        return source / NAME
    folders = (source, *(source / name for name in archive.FOLDERS))
    return next((folder for folder in folders if (folder / "train" / "m0").is_dir()), None)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: damaged or truncated zip file ({error})") from error


def _check_zip(path: Path) -> None:
    with _open_zip(path) as zipped:
        _check_items(archive.index_names(zipped.namelist(), path), path)


def _check_items(index: archive.Index, origin: Path | str) -> None:
    for split, views in index.items():
        if len(views[0]) != ITEMS[split]:
            raise ValueError(
                f"{origin}: incomplete: expected {ITEMS[split]:,} items in {split}, "
                f"found {len(views[0]):,}"
            )


def _write_arrays(
    folder: Path,
    index: archive.Index,
    read: Callable[[str], bytes],
    origin: str,
    progress: bool,
) -> None:
    _check_items(index, origin)
    sums: dict[str, str] = {}
    for split, views in index.items():
        digits = np.array([digit for _, digit in views[0]], np.int64)
        sums |= _save(folder / f"{split}_labels.npy", digits)
        for k, view in enumerate(views):
            names: Iterable[str] = tqdm(
                view.values(), desc=f"{split} m{k}", unit="image", disable=not progress
            )
            try:
                images = archive.decode(names, read)
            except (zipfile.BadZipFile, zlib.error) as error:  # a CRC-32 is wrong, for one
                raise ValueError(f"{origin}: damaged ({error})") from error
            sums |= _save(folder / f"{split}_m{k}.npy", images)
    manifest = {
        "recipe": "PolyMNIST as published: x = B (1 - M) + (1 - B) M, M = MNIST > 128",
        "source": f"{origin}, doi:{DOI}",
        "items": {split: len(views[0]) for split, views in index.items()},
        "sha256": sums,
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (folder / archive.MANIFEST).write_text(text, encoding="utf-8")


def _save(path: Path, array: np.ndarray) -> dict[str, str]:
    np.save(path, array, allow_pickle=False)
    return {path.name: _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(folder: Path) -> bool:
    try:
        sums = archive.read_manifest(folder)["sha256"]
        return all(_sha256(folder / name) == seen for name, seen in sums.items())
    except (ValueError, OSError):
        return False
