"""Where the project keeps things, and how it writes them: paths, plain JSON, hashes.

A file written here is either the old one or the new one, never half of either: it is written
under another name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any


def is_project(folder: Path) -> bool:
    """Whether `folder` holds the shala_lite project: its `pyproject.toml` says so."""
    try:
        name = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]
    except (OSError, KeyError, TypeError, ValueError):
        return False
    return str(name).lower().replace("_", "-") == "shala-lite"


def project() -> Path | None:
    """Nearest folder, from the working directory upwards, that holds the project."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if is_project(folder)), None)


def root() -> Path:
    """Folder of all runs and artifacts.

    `$SHALA_RUNS` if it is set, else `runs` in the project that the working directory is in,
    else `runs` in the working directory.
    """
    named = os.environ.get("SHALA_RUNS")
    if named:
        return Path(named).expanduser().resolve()
    return (project() or Path.cwd()) / "runs"


def book() -> Path | None:
    """Folder of the chapters, `book` in the project; None where only the library is installed."""
    beside_package = Path(__file__).resolve().parent.parent
    home = project() or (beside_package if is_project(beside_package) else None)
    return home / "book" if home and (home / "book").is_dir() else None


def canonical(value: Any, where: str = "value") -> str:
    """JSON text that is the same for equal values: keys sorted, and 1.0 written as 1.

    Raises TypeError, naming the place, for anything but None, bool, int, float, str and lists
    and dicts of them (a tuple counts as a list); ValueError for a float that is not finite.
    """
    return json.dumps(_plain(value, where), sort_keys=True, separators=(",", ":"))


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; expected a finite number")
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; expected keys of type str")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where} is a {type(value).__name__}; expected None, bool, int, float, str, "
        "or a list or dict of them"
    )


def text_sha256(text: str) -> str:
    """Hex sha256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees the old bytes or the new."""
    other = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(other, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(other, path)
    finally:
        other.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; a ValueError names the file when it is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is not JSON: {error}") from error
