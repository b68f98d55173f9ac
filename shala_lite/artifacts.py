"""Things that are trained or computed once and found again by what made them.

An artifact is a folder `<kind>-<hash>` under `root()/artifacts`. The hash covers its
configuration and the code that made it, so that other code means another folder and a stale one
is never used. It appears under its name only when it is complete, and each of its files is
compared with its recorded sha256 whenever it is found again.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .code_digest import module_digests, own_digests
from .files import canonical, file_sha256, read_json, root, text_sha256, write_json
from .machine import Meter, device, now

RECORD = "artifact.json"


def artifact(
    kind: str,
    config: Mapping[str, Any],
    sources: Sequence[str],
    make: Callable[[Path], None] | None = None,
    *,
    recipes: Sequence[str] = (),
    how: str = "",
) -> Path:
    """Folder of the artifact made by `config` and the code in `sources`; made if it is missing.

    kind: short name, the first part of the folder's.
    config: plain JSON values; everything but code that decides what is made, seeds and data
        fingerprints among them.
    sources: modules of the code that makes it; what they import counts by itself.
    recipes: modules that count without what they import: where `make` stands, say.
    make: `make(folder)` writes files into a folder that survives when the process is killed, so
        that it can go on from a checkpoint there. Files named `checkpoint*` are removed at the
        end. An exception of `make` is passed on. None means only to read what was made before.
    how: for the error of a missing artifact, the command that makes it.

    One process makes it while others that want it wait. A damaged artifact is moved aside with a
    warning and made anew; read only, it is a ValueError, and a missing one a FileNotFoundError.
    """
    if not kind.replace("_", "").isalnum():
        raise ValueError(f"kind is {kind!r}; expected letters, digits and underscores")
    config = dict(config)
    code = dict(sorted((module_digests(sources) | own_digests(recipes)).items()))
    name = f"{kind}-{text_sha256(canonical({'config': config, 'code': code}, 'config'))[:12]}"
    store = root() / "artifacts"
    folder = store / name
    if make is None:
        return _read_only(folder, kind, how)
    store.mkdir(parents=True, exist_ok=True)
    with locked(store / f"{name}.lock", f"another process makes this {kind}"):
        if folder.exists():
            problem = damage(folder)
            if problem is None:
                _sweep(folder)
                return folder
            aside = _free_name(folder)
            folder.rename(aside)
            warnings.warn(
                f"artifact {name} is damaged ({problem}); moved to {aside} and made anew",
                stacklevel=2,
            )
        else:
            _tell_if_stale(store, kind, config, code)
        _make(store, name, make, {"kind": kind, "config": config, "code": code})
    return folder


def record(folder: Path) -> dict[str, Any]:
    """What is known of a finished artifact: kind, config, code, files, seconds, device.

    Raises ValueError if the record is missing or not as it was written.
    """
    known = read_json(folder / RECORD)
    seal = known.pop("seal", None) if isinstance(known, dict) else None
    if seal != text_sha256(canonical(known)):
        raise ValueError(f"{folder / RECORD} is damaged: it is not as it was written")
    return known


def damage(folder: Path) -> str | None:
    """What is wrong with a finished artifact, or None: every file is compared by its sha256."""
    try:
        files = record(folder)["files"]
    except ValueError as error:
        return str(error)
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_sha256(path) != expected:
            return f"{name} is not as it was written ({path.stat().st_size} bytes)"
    return None


@contextmanager
def locked(path: Path, why: str) -> Iterator[None]:
    """Hold the lock `path`; after a second of waiting, stderr says for which lock and why."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"waiting for {path}: {why}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(store: Path, name: str, make: Callable[[Path], None], known: dict[str, Any]) -> None:
    partial = store / f"{name}.partial"
    resumed = partial.exists()
    partial.mkdir(exist_ok=True)
    with Meter() as meter:
        make(partial)
    left_out = {partial / RECORD, *_leftovers(partial)}
    paths = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    kept = [path for path in paths if left_out.isdisjoint((path, *path.parents))]
    if not kept:
        raise RuntimeError(f"make wrote no file into {partial}; there is no artifact to keep")
    known |= {"files": {path.relative_to(partial).as_posix(): file_sha256(path) for path in kept}}
    # `seconds` is of the last attempt; `resumed` says that there was one before it.
    known |= {**meter.report(), **device(), "resumed": resumed, "made": now()}
    write_json(partial / RECORD, {**known, "seal": text_sha256(canonical(known))})
    partial.rename(store / name)
    # Only now: killed any earlier, the next attempt goes on from the checkpoint.
    _sweep(store / name)


def _leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("checkpoint*"))


def _sweep(folder: Path) -> None:
    for path in _leftovers(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _free_name(folder: Path) -> Path:
    n = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{n}")).exists():
        n += 1
    return aside


def _read_only(folder: Path, kind: str, how: str) -> Path:
    made_by = f"; make it with: {how}" if how else ""
    if not folder.exists():
        raise FileNotFoundError(f"there is no {kind} {folder.name} in {folder.parent}{made_by}")
    problem = damage(folder)
    if problem is not None:
        raise ValueError(f"{kind} {folder} is damaged ({problem}){made_by}")
    return folder


def _tell_if_stale(store: Path, kind: str, config: dict[str, Any], code: dict[str, str]) -> None:
    """Say on stderr if there is one of the same configuration by other code, and which code."""
    for path in sorted(store.glob(f"{kind}-*/{RECORD}")):
        try:
            other = record(path.parent)
        except ValueError:
            continue
        if canonical(other.get("config")) != canonical(config):
            continue
        was = other["code"]
        changed = sorted(m for m in code.keys() | was.keys() if code.get(m) != was.get(m))
        print(
            f"{path.parent.name} is stale ({', '.join(changed)} changed since); making another",
            file=sys.stderr,
            flush=True,
        )
        return
