"""Published results: what the book quotes, gathered from finished runs, one seed at a time.

`book/results/<chapter>/<dataset>-<source>-<profile>/` holds

- `manifest.json`: under `runs` an entry per seed, the run's own manifest and metrics; under
  `parameters` what they have in common; under `images` whose images they are;
- `metrics.json`: per metric the mean over the runs and, from two on, `_std`, their sample standard
  deviation (`variant/key_std@slice`); of the ends of an interval, slices `low` and `high`, the
  outermost; `seeds` is their count. It follows from the manifest;
- the images of the run with the smallest seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .artifacts import locked
from .code_digest import module_digest
from .files import canonical, file_sha256, read_json, write_atomic, write_json
from .profiles import home
from .runs import split_metric

IMAGE_BYTES = 300_000
OUTERMOST = {"low": min, "high": max}  # of several intervals' ends, by the end of the slice
MACHINE_OWN = ("seed", "root")  # what runs to be averaged may differ in


@dataclass(frozen=True)
class Published:
    """Published results of one chapter, dataset, source and profile."""

    folder: Path
    metrics: dict[str, float]
    manifest: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs that went into it."""
        return [run["seed"] for run in self.manifest["runs"]]

    @property
    def images(self) -> dict[str, Path]:
        """Images by name, without `.png`."""
        return {Path(n).stem: self.folder / n for n in self.manifest["images"]["files"]}

    def text(self, name: str, form: str = ".3f") -> str:
        """One metric: `0.612 ± 0.010`, or `0.612` where it does not vary, as with one seed."""
        if name not in self.metrics:
            raise ValueError(f"{self.folder} has no metric {name!r}; it has {list(self.metrics)}")
        spread = self.metrics.get(std_name(name))
        beside = "" if not spread else f" ±\N{NO-BREAK SPACE}{spread:{form}}"
        return f"{self.metrics[name]:{form}}{beside}"

    @property
    def origin(self) -> str:
        """Which runs these are: data and what they are made of, profile, seeds, commits, devices,
        day."""
        return self._origin(self.manifest["runs"])

    @property
    def images_origin(self) -> str:
        """The same of the one run that the images are of."""
        seed = self.manifest["images"]["seed"]
        return self._origin([run for run in self.manifest["runs"] if run["seed"] == seed])

    def _origin(self, runs: list[dict[str, Any]]) -> str:
        manifest, count = self.manifest, len(runs)

        def each(values: Iterable[str]) -> str:
            return ", ".join(dict.fromkeys(values))

        commits = (
            (run["commit"] or "unknown")[:10] + (" with changes" if run["dirty"] else "")
            for run in runs
        )
        known = (d for run in runs for d in run["datasets"] if d["name"] == manifest["dataset"])
        notes = "; ".join(dict.fromkeys(d["note"] for d in known if d.get("note")))
        data = f"{manifest['source']} data" + (f" ({notes})" if notes else "")
        return (
            f"{manifest['dataset']}, {data}, profile {manifest['profile']}, "
            f"{count} seed{'s' if count > 1 else ''} ({each(str(run['seed']) for run in runs)}), "
            f"commit {each(commits)}, "
            f"on {each(run['device'] for run in runs)}, {max(r['finished'] for r in runs)[:10]}"
        )


def publish(run_folder: Path, book: Path | None = None) -> Published:
    """Merge a finished run into its published folder and return what that then holds.

    A run of a seed that is there already takes its place. Raises ValueError, and changes nothing,
    if the run is not finished, if an image is over 300 kB, or if the runs of the other seeds have
    other parameters, data or metrics.
    """
    entry = _finished(run_folder)
    images = {name: (run_folder / name).read_bytes() for name in entry["images"]}
    for name, content in images.items():
        if len(content) > IMAGE_BYTES:
            raise ValueError(f"{run_folder / name} has {len(content)} bytes; at most {IMAGE_BYTES}")
    folder = results_folder(
        entry["chapter"], entry["dataset"], entry["source"], entry["profile"], book
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / ".publish.lock", "another process publishes a run"):
        others = _runs(folder)
        others.pop(entry["seed"], None)
        for other in others.values():
            _same(entry, other, folder)
        entries = [e for _, e in sorted({**others, entry["seed"]: entry}.items())]
        folder.mkdir(parents=True, exist_ok=True)
        if entries[0] is entry:
            for name, content in images.items():
                write_atomic(folder / name, content)
        shown = {"seed": entries[0]["seed"], "files": entries[0]["images"]}
        write_json(folder / "metrics.json", summary([e["metrics"] for e in entries]))
        write_json(
            folder / "manifest.json",
            {
                **{key: entry[key] for key in ("chapter", "dataset", "source", "profile")},
                "parameters": _common(entry),
                "images": shown,
                "runs": entries,
            },
        )
        for path in folder.glob("*.png"):
            if path.name not in shown["files"]:
                path.unlink()
        return _load(folder)


def published(
    chapter: str, dataset: str, source: str, profile: str, book: Path | None = None
) -> Published | None:
    """Published results, or None where no such run is published.

    Raises ValueError if `metrics.json` does not follow from the runs in `manifest.json`: it was
    edited by hand, or publishing was cut short (publish the run again).
    """
    folder = results_folder(chapter, dataset, source, profile, book)
    return _load(folder) if folder.is_dir() else None


def all_published(book: Path | None = None) -> list[Published]:
    """All published results, by chapter and name."""
    found = (home(book) / "results").glob("*/*/manifest.json")
    return [_load(path.parent) for path in sorted(found)]


def changed_code(results: Published) -> list[str]:
    """Modules that are not today as they were in a run that these results come from."""
    recorded = {item for run in results.manifest["runs"] for item in run["code"].items()}
    return sorted({module for module, digest in recorded if module_digest(module) != digest})


def results_folder(
    chapter: str, dataset: str, source: str, profile: str, book: Path | None = None
) -> Path:
    """Where results of these are published."""
    return home(book) / "results" / chapter / f"{dataset}-{source}-{profile}"


def summary(runs: list[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric, its sample standard deviation from two runs on, and `seeds`.

    The mean of the ends of intervals is the end of none. So where a slice is `low` or `high`, or
    ends with `_low` or `_high`, it is the end that no run passes, and has no deviation.
    """
    result: dict[str, float] = {"seeds": len(runs)}
    for name in runs[0]:
        values = [metrics[name] for metrics in runs]
        end = (split_metric(name)[2] or "").rpartition("_")[2]
        if end in OUTERMOST:
            result[name] = OUTERMOST[end](values)
            continue
        result[name] = fmean(values)
        if len(values) > 1:
            result[std_name(name)] = stdev(values)
    return dict(sorted(result.items()))


def std_name(name: str) -> str:
    """Name of the standard deviation of a metric: `variant/key_std` or `variant/key_std@slice`."""
    variant, key, part = split_metric(name)
    return f"{variant}/{key}_std" + (f"@{part}" if part else "")


def _finished(run_folder: Path) -> dict[str, Any]:
    """Entry of a run: its manifest and its metrics, without the machine's own paths."""
    for name in ("manifest.json", "metrics.json"):
        if not (run_folder / name).is_file():
            raise ValueError(f"{run_folder} has no {name}: it is no finished run")
    manifest = read_json(run_folder / "manifest.json")
    if manifest["metrics_sha256"] != file_sha256(run_folder / "metrics.json"):
        raise ValueError(
            f"{run_folder}: metrics.json is not the one its manifest.json describes; run it again"
        )
    metrics = read_json(run_folder / "metrics.json")
    if not metrics:
        raise ValueError(f"{run_folder}: metrics.json is empty, there is nothing to publish")
    parameters = {k: v for k, v in manifest["parameters"].items() if k != "root"}
    return {**manifest, "parameters": parameters, "metrics": metrics}


def _runs(folder: Path) -> dict[int, dict[str, Any]]:
    path = folder / "manifest.json"
    return {run["seed"]: run for run in read_json(path)["runs"]} if path.exists() else {}


def _common(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in entry["parameters"].items() if k not in MACHINE_OWN}


def _data(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What seeds must agree on; the fingerprint may differ, for a seed may compose the items."""
    return {
        f"{d['name']} {d['split']}": f"{d['source']}, {d['size']}, {d.get('note', '')}"
        for d in entry["datasets"]
    }


def _same(entry: Mapping[str, Any], other: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError, naming what differs, if the two runs must not be averaged."""
    names, others = (dict.fromkeys(run["metrics"], "recorded") for run in (entry, other))
    for what, here, there in (
        ("parameter", _common(entry), _common(other)),
        ("data", _data(entry), _data(other)),
        ("metric", names, others),
    ):
        for name in sorted(here.keys() | there.keys()):
            mine, its = here.get(name, "absent"), there.get(name, "absent")
            if canonical(mine) != canonical(its):
                raise ValueError(
                    f"{what} {name} is {mine!r} in this run and {its!r} in the published run of "
                    f"seed {other['seed']}; delete {folder} to start anew"
                )


def _load(folder: Path) -> Published:
    manifest = read_json(folder / "manifest.json")
    metrics = read_json(folder / "metrics.json")
    expected = summary([run["metrics"] for run in manifest["runs"]])
    if canonical(metrics) != canonical(expected):
        raise ValueError(f"{folder}: metrics.json is not the summary of the runs in manifest.json")
    for name in manifest["images"]["files"]:
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: {name} is missing; publish the run again")
    return Published(folder, metrics, manifest)
