"""What a run ran on: commit, versions, device, and how long and how much memory a stage took."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

from .files import is_project

PACKAGES = ("torch", "numpy", "lightning", "scikit-learn")
# What the state of the working tree is judged by; publishing a result must not make it dirty.
CODE = ("shala_lite", "book", "data_scripts", "pyproject.toml", ":(exclude)book/results")


def now() -> str:
    """Time now, UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit(folder: Path | None = None) -> dict[str, Any]:
    """Commit of the project's code and whether files differ from it; None where git has none.

    folder: the project, by default the one that holds this package.
    """
    folder = folder or Path(__file__).resolve().parent.parent
    unknown = {"commit": None, "dirty": None}
    if not is_project(folder):
        return unknown
    head = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", *CODE)
    return unknown if head is None or changes is None else {"commit": head, "dirty": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str | None]:
    """Versions of Python, of this library and of the packages that numbers depend on."""
    library = getattr(sys.modules[__name__.split(".")[0]], "__version__", None)
    found: dict[str, str | None] = {"python": platform.python_version(), "shala_lite": library}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def device() -> dict[str, Any]:
    """Name of the device this process computed on, and its number of CPU threads.

    The GPU's name if the process has used CUDA, else the processor's.
    """
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else os.cpu_count()
    if torch and torch.cuda.is_initialized():
        return {"device": torch.cuda.get_device_name(), "threads": threads}
    return {"device": _processor(), "threads": threads}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


class Meter:
    """Measures a `with` block: `seconds`, and `peak_memory_mib` by `memory_of`.

    "cuda": memory that torch allocated on the device, once the process uses CUDA. "process":
    resident memory. Peaks are those of the block, except where the system cannot start its count
    afresh (other than Linux): there it is the largest since the process began. Meters may be
    nested.
    """

    _open: list[Meter] = []  # noqa: RUF012  (shared on purpose: the system keeps one peak for all)

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_memory_mib = 0.0
        self.memory_of = "process"

    def __enter__(self) -> Meter:
        self._settle()
        self._open.append(self)
        self._start = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = perf_counter() - self._start
        self._settle()
        self._open.remove(self)

    @classmethod
    def _settle(cls) -> None:
        """Hand the peak so far to every open meter, and start the system's count afresh."""
        memory_of, peak = _take_peak_mib()
        for meter in cls._open:
            if meter.memory_of != memory_of:  # CUDA came into use inside the block
                meter.memory_of, meter.peak_memory_mib = memory_of, 0.0
            meter.peak_memory_mib = max(meter.peak_memory_mib, peak)

    def report(self) -> dict[str, Any]:
        """The three measurements as a dict."""
        return {
            "seconds": round(self.seconds, 3),
            "peak_memory_mib": round(self.peak_memory_mib, 1),
            "memory_of": self.memory_of,
        }


def _take_peak_mib() -> tuple[str, float]:
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        peak = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return "cuda", peak
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return "process", _largest_mib()
    with suppress(OSError):  # not allowed in some containers: the peak is then the process's
        Path("/proc/self/clear_refs").write_text("5")
    return "process", kib / 2**10


def _largest_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows has no such count
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
