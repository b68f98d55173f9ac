"""Stage 1 beside MultiVae's, in one run: quality, speed, memory, and the agreement of scores.

    make bench-stage1
    make bench-stage1 ARGS="--seconds 240 --source real --models mopoe multivae_mopoe"

On the same arrays, nets, likelihood, batch, optimiser, learning rates and training seconds. What
differs is named in `NOTES`. Every model is trained in a process of its own; judges are those of the
book's chapters. Writes `results.json` (with a manifest) and `table.txt` under `runs/bench-stage1`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from time import perf_counter
from typing import Any

from benchmarks.settings import PEERS, Settings, parse
from shala_lite import machine
from shala_lite.files import (
    canonical,
    file_sha256,
    read_json,
    root,
    text_sha256,
    write_atomic,
    write_json,
)

PEER_PACKAGES = ("multivae", "pythae", "torchvision", "torchmetrics")
NOTES = (
    "Ours clips the norm of gradients at 1; MultiVae's trainer has no clipping.",
    "MultiVae's MMVAE+ sums its loss over the batch; AdamW does not see the factor.",
    "MoPoE: MultiVae adds the prior as an expert to the product of all modalities, and cuts each "
    "batch into equal parts for its subsets; ours follows the paper's definition, and draws them.",
    "MMVAE+: one importance sample (K = 1), Gaussian; MultiVae generates jointly with one private "
    "code for all modalities, ours with one for each.",
    "MVTCAE has alpha = 5/6, as its authors have it; there is none of ours, so its speed stands "
    "beside the fused model's.",
    "trainer: our fit, MultiVae's BaseTrainer and loader, each as it comes: our AdamW is PyTorch's "
    "fused one, MultiVae's the plain one. step: the model and the fused optimiser alone. In both, "
    "our convolutions keep channels last in memory. In the trainings behind the scores MultiVae's "
    "optimiser is fused, too. CPU time: the same ratio in seconds of each process's own computing, "
    "which others on the machine change less.",
    "seconds: of the clock. On a CPU the budget is in CPU s, each process's own computing.",
    "entropy of the classes that the judges see in generated sets, in nats: ln 10 = 2.30 at best, "
    "and 0 for a collapsed model, whose unconditional coherence says nothing.",
    "Frechet is frechet_judge, in the judges' features; judge is the ceiling, floor is real "
    "training data against real test data.",
)


def folder_of(settings: Settings) -> Path:
    """Where the results of a run with these settings lie."""
    words = f"polymnist-{settings.source}-seed{settings.seed}"
    return root() / "bench-stage1" / f"{words}-{text_sha256(canonical(asdict(settings)))[:8]}"


def job(name: str, settings: Settings, folder: Path) -> dict[str, Any]:
    """Result of one job, done in a process of its own.

    Raises:
        SystemExit: it failed; what it said stands above.
    """
    asked, answer = folder / "settings.json", folder / f"{name.replace(':', '-')}.json"
    answer.unlink(missing_ok=True)
    write_json(asked, asdict(settings))
    threads = str(settings.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    )
    command = [sys.executable, "-m", "benchmarks.worker", name, str(asked), str(answer)]
    code = subprocess.run(command, env=environment).returncode
    if code or not answer.exists():
        raise SystemExit(f"bench-stage1: {name} ended with status {code}; why stands above")
    return read_json(answer)


def versions() -> dict[str, str | None]:
    """Versions of what the numbers depend on, the peer's among them."""
    found = machine.versions()
    for package in PEER_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def plan(settings: Settings) -> list[str]:
    """The jobs in order: judges, one training for each model, then the timings."""
    from benchmarks.throughput import PAIRS

    chosen = [pair for pair in PAIRS if set(pair) & set(settings.models)]
    return ["judges", *settings.models, *(f"throughput:{a}:{b}" for a, b in chosen)]


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run all jobs, print the tables, and return the folder of the results."""
    settings = parse(arguments)
    if set(settings.models) & set(PEERS) and find_spec("multivae") is None:
        raise SystemExit(
            "bench-stage1: MultiVae is not installed for this Python; `make bench-stage1` sets up "
            "an environment with it (or name models of ours alone: --models concat)"
        )
    folder, began = folder_of(settings), perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    jobs, done = plan(settings), {}
    minutes = len(settings.models) * settings.seconds / 60
    print(f"== bench-stage1: {len(jobs)} jobs, {minutes:.0f} minutes of training, into {folder}")
    started = machine.now()
    for index, name in enumerate(jobs):
        spent = (perf_counter() - began) / 60
        print(f"== {index + 1} of {len(jobs)}: {name} ({spent:.1f} min so far)", flush=True)
        done[name] = job(name, settings, folder)
    results: dict[str, Any] = {
        "judges": done["judges"]["result"],
        "models": [done[name]["result"] for name in settings.models],
        "throughput": [
            row for name in jobs if name.startswith("throughput") for row in done[name]["result"]
        ],
        "notes": NOTES,
        "manifest": {
            **machine.commit(),
            "benchmark": {  # the commit's `dirty` does not look here
                path.name: file_sha256(path) for path in sorted(Path(__file__).parent.glob("*.py"))
            },
            "settings": asdict(settings),
            "device": done["judges"]["device"],
            "threads": settings.threads,
            "cpu_count": os.cpu_count(),
            "versions": versions(),
            "started": started,
            "finished": machine.now(),
            "seconds": round(perf_counter() - began, 1),
        },
    }
    write_json(folder / "results.json", results)
    text = report(results)
    write_atomic(folder / "table.txt", text.encode())
    print(text)
    print(f"== results.json and table.txt are in {folder}")
    return folder


def report(results: dict[str, Any]) -> str:
    """All tables and notes of a run."""
    from benchmarks.table import agreement_table, main_table, ratio_table

    manifest = results["manifest"]
    settings = manifest["settings"]
    checks = [row for model in results["models"] for row in model.get("agreement", [])]
    parts = [
        f"{settings['source']} PolyMNIST, {settings['seconds']:g} training seconds a model, 1 seed "
        f"({settings['seed']}),\n"
        f"{manifest['device']}, {manifest['threads']} thread(s), batch {settings['batch']}, "
        f"{settings['decoder']} decoders,\n"
        f"commit {str(manifest['commit'])[:7]}{' with changes' if manifest['dirty'] else ''}, "
        f"{manifest['finished'][:10]}",
        main_table(results),
        ratio_table(results["throughput"]),
        agreement_table(checks) if checks else "Agreement: not checked, MultiVae is not installed.",
        "\n".join(fill(f"- {note}", 74, subsequent_indent="  ") for note in results["notes"]),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
