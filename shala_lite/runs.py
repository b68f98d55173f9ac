"""A run of a chapter: its folder, its `metrics.json`, and a manifest of how they came about.

A notebook calls `start` right after its `parameters` cell, notes what it measures and uses, and
calls `finish`. Until then nothing of an earlier run in the same folder is touched.

    run = runs.start("05_diffusion_prior", globals(), keys=metrics.KEYS)
    with run.stage("stage 2"):
        ...
    run.record("prior", "conditional_coherence", 0.93, slice="1_sources")
    run.finish()
"""

from __future__ import annotations

import difflib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from . import artifacts, code_digest, machine, profiles
from .artifacts import artifact
from .files import book, canonical, file_sha256, root, text_sha256, write_atomic, write_json

__all__ = ["Run", "artifact", "check_metric", "root", "run_folder", "split_metric", "start"]

METRIC = re.compile(r"([\w.+-]+)/([a-z]\w*)(?:@([\w.+-]+))?")


class Dataset(Protocol):
    """What a manifest says of a dataset."""

    name: str
    split: str
    source: str
    note: str  # what it is made of, in words

    @property
    def fingerprint(self) -> str:
        """sha256 of the content."""
        ...

    def __len__(self) -> int:
        """Count of items."""
        ...


class Figure(Protocol):
    """Anything that draws itself into a PNG file, as a matplotlib figure does."""

    def savefig(self, file: Any, *, format: str, **options: Any) -> None:
        """Write the image to an open file."""
        ...


def run_folder(chapter: str, parameters: Mapping[str, Any]) -> Path:
    """Folder of the run with these parameters; the same ones give the same folder.

    `root()/<chapter>/<dataset>-<source>-<profile>-seed<k>-<hash of all parameters>`.
    Raises ValueError if `dataset`, `source`, `profile` or `seed` is missing or of another type.
    """
    for name, kind in (("dataset", str), ("source", str), ("profile", str), ("seed", int)):
        value = parameters.get(name)
        if type(value) is not kind or not re.fullmatch(r"[\w.+-]+", str(value)):
            raise ValueError(f"{name} is {value!r}; expected {kind.__name__}, one word")
    words = "{dataset}-{source}-{profile}-seed{seed}".format_map(parameters)
    return root() / chapter / f"{words}-{text_sha256(canonical(dict(parameters)))[:8]}"


def start(
    chapter: str,
    namespace: Mapping[str, Any],
    *,
    keys: Mapping[str, Any],
    sources: Sequence[str] | None = None,
) -> Run:
    """Start a run of `chapter`; call it right after the cell tagged `parameters`.

    namespace: `globals()`; each plain value in it is a parameter: None, bool, int, float, str,
        lists and dicts of them, under a name without a leading underscore.
    keys: the registered metrics, `metrics.KEYS`.
    sources: modules whose code makes the numbers; by default, all that the process has loaded.

    Raises ValueError if the notebook in the book has other parameters, or other types of them.
    """
    parameters = _plain_values(namespace)
    home = book()
    notebook = home / f"{chapter}.ipynb" if home else None
    if notebook and notebook.exists():
        where = f"{chapter}, plain values before runs.start"
        profiles.check(parameters, profiles.notebook_parameters(notebook), where)
    return Run(chapter, parameters, keys, sources)


def _plain_values(namespace: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {}
    for name, value in namespace.items():
        if name.startswith("_") or name in ("In", "Out"):
            continue
        try:
            canonical(value, name)
        except TypeError:
            continue
        parameters[name] = value
    return parameters


def split_metric(name: str) -> tuple[str, str, str | None]:
    """Split `variant/key` or `variant/key@slice`; ValueError if it is neither."""
    match = METRIC.fullmatch(name)
    if match is None:
        raise ValueError(f"metric {name!r}; expected `variant/key` or `variant/key@slice`")
    return match[1], match[2], match[3]


def check_metric(name: str, keys: Mapping[str, Any]) -> None:
    """Raise ValueError unless the key of the metric `name` is registered in `keys`.

    `_std` belongs to published results, where it is over seeds; a run records one seed.
    """
    key = split_metric(name)[1]
    if key in keys:
        return
    if key.removesuffix("_std") in keys:
        raise ValueError(f"metric {name!r}: `_std` is over seeds; publishing several makes it")
    close = difflib.get_close_matches(key, keys, n=3, cutoff=0.4) or sorted(keys)
    raise ValueError(f"metric {name!r}: no registered key {key!r}; close: {', '.join(close)}")


class Run:
    """One run of a chapter; `start` makes it. `folder` is where its files go."""

    def __init__(
        self,
        chapter: str,
        parameters: Mapping[str, Any],
        keys: Mapping[str, Any],
        sources: Sequence[str] | None = None,
    ) -> None:
        self.chapter = chapter
        self.parameters = dict(parameters)
        self.folder = run_folder(chapter, parameters)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.metrics: dict[str, float] = {}
        self._keys = keys
        self._sources = sources
        self._stages: dict[str, dict[str, Any]] = {}
        self._trainings: dict[tuple[str, str], dict[str, Any]] = {}
        self._datasets: dict[str, dict[str, Any]] = {}
        self._artifacts: dict[str, dict[str, Any]] = {}
        self._images: dict[str, bytes] = {}
        self._code = machine.commit()  # of the start: what is edited during the run is not it
        self._started = machine.now()
        self._clock = perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note seconds and peak memory (MiB) of a `with` block; a second one of a name adds up."""
        meter = machine.Meter()
        with meter:
            yield
        new, old = meter.report(), self._stages.get(name)
        if old is not None:
            new["seconds"] = round(new["seconds"] + old["seconds"], 3)
            new["peak_memory_mib"] = max(new["peak_memory_mib"], old["peak_memory_mib"])
        self._stages[name] = new

    def record(self, variant: str, key: str, value: float, slice: str | None = None) -> None:
        """Note one metric, `variant/key` or `variant/key@slice`; the last value of a name stays.

        Raises ValueError for a key that is not registered and a value that is not finite.
        """
        name = f"{variant}/{key}" if slice is None else f"{variant}/{key}@{slice}"
        check_metric(name, self._keys)
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"metric {name!r} is {number}; expected a finite number")
        self.metrics[name] = number

    def record_all(self, metrics: Mapping[str, float]) -> None:
        """Note several metrics by their full names."""
        for name, value in metrics.items():
            variant, key, part = split_metric(name)
            self.record(variant, key, value, slice=part)

    def used(self, folder: Path) -> Path:
        """Note an artifact that the numbers rest on, and give its folder back."""
        known = artifacts.record(folder)
        kept = ("kind", "code", "seconds", "peak_memory_mib", "memory_of", "device", "made")
        self._artifacts[folder.name] = {
            "hash": folder.name.rsplit("-", 1)[1],
            "files_hash": text_sha256(canonical(known["files"])),
            **{key: known[key] for key in kept},
        }
        return folder

    def trained(self, folder: Path, label: str, items: int, seconds: float) -> None:
        """Note a training: how many items it saw, each as often as it did, and in which time.

        folder: the artifact that it belongs to; several may be trained under one label.
        """
        known = {"training": label, "artifact": folder.name, "items": items}
        known |= {"seconds": round(seconds, 3)}
        known |= {"items_per_second": round(items / max(seconds, 1e-9), 1)}
        self._trainings[folder.name, label] = known

    def dataset(self, dataset: Dataset) -> None:
        """Note a dataset: name, split, source, size, fingerprint, and what it is made of."""
        self._datasets[dataset.fingerprint] = {
            "name": dataset.name,
            "split": dataset.split,
            "source": dataset.source,
            "size": len(dataset),
            "fingerprint": dataset.fingerprint,
            "note": dataset.note,
        }

    def save_image(self, name: str, figure: Figure, *, dpi: int = 100) -> None:
        """Keep a figure as `<name>.png`; `finish` writes it into the folder.

        It may be published, so that it must not show real data whose terms forbid that.
        """
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"name is {name!r}; expected letters, digits, dashes, underscores")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight")
        self._images[f"{name}.png"] = file.getvalue()

    def finish(self) -> Path:
        """Write images, `metrics.json` and `manifest.json`, each at once; return the folder."""
        for name, content in self._images.items():
            write_atomic(self.folder / name, content)
        metrics = self.folder / "metrics.json"
        write_json(metrics, self.metrics)
        # The hash ties the two files together, should the process die between them.
        manifest = {**self.manifest(), "metrics_sha256": file_sha256(metrics)}
        write_json(self.folder / "manifest.json", manifest)
        return self.folder

    def manifest(self) -> dict[str, Any]:
        """How the numbers came about, as `manifest.json` has it."""
        used = [
            {"name": name, **{key: value for key, value in known.items() if key != "code"}}
            for name, known in sorted(self._artifacts.items())
        ]
        modules = self._sources if self._sources is not None else code_digest.loaded_modules()
        code = code_digest.module_digests(modules)
        for known in self._artifacts.values():
            code |= known["code"]
        return {
            "chapter": self.chapter,
            "folder": self.folder.name,
            "parameters": self.parameters,
            **{key: self.parameters[key] for key in ("dataset", "source", "profile", "seed")},
            "datasets": sorted(self._datasets.values(), key=lambda d: (d["name"], d["split"])),
            "artifacts": used,
            "code": dict(sorted(code.items())),
            **self._code,
            "versions": machine.versions(),
            **machine.device(),
            "stages": self._stages,
            "trainings": [*self._trainings.values()],
            "started": self._started,
            "finished": machine.now(),
            "seconds": round(perf_counter() - self._clock, 3),
            "images": sorted(self._images),
        }
