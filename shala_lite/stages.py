"""How each stage of an experiment is named, seeded, budgeted, trained and kept."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shala_lite.artifacts import artifact, record
from shala_lite.files import read_json, write_json
from shala_lite.fusion import FUSIONS
from shala_lite.runs import Run
from shala_lite.training import Batches, History, fit

# What no chapter varies: a parameter of the run with the stage's prefix overrides it.
JUDGE_DEFAULTS = {"batch": 128, "rate": 5e-3}
# Steps on alignment alone, before the ELBO; large batches, because partners compete in a batch.
STAGE1_DEFAULTS = {
    "steps": 0,
    "seconds": 0,
    "missing": 0.0,
    "align_steps": 0,
    "align_batch": 128,
    "align_rate": 4e-3,
}
# The guide is worse on purpose: smaller, and trained for a share of the steps.
STAGE2_DEFAULTS = {"steps": 0, "seconds": 0, "ema": 0.998, "guide_width": 128, "guide_share": 0.05}
FEWSTEP_DEFAULTS = {"seconds": 0, "ema": 0.99}


def module_of(variant: str) -> str:
    """Where a stage 1 is defined: what its artifact depends on."""
    return "fused" if variant in FUSIONS else f"experts.{variant}"


def baseline(name: str, latent_dim: int, modalities: int, **changes: Any) -> dict[str, Any]:
    """Settings of a baseline whose decoders read as many numbers of z as those of our stage 1.

    MMVAE+ has half of them in common and half private to each modality. The layers from a feature
    to its expert are fewer than those of a fusion network.

    Args:
        name: in `experts.EXPERTS`.
        latent_dim: Z of our stage 1.
        modalities: M.
        changes: further settings.
    """
    settings = dict(depth=2, hidden=256) | changes
    if name != "mmvaeplus":
        return settings
    half = latent_dim // 2
    return settings | dict(latent_dim=half + modalities * half, private_dim=half)


def label_of(stage: str, variant: str, changes: dict[str, Any]) -> str:
    """Name of a training, as progress bars and `Experiment.histories` show it."""
    words = [stage] if variant == "concat" else [stage, variant]
    if changes:
        words.append("(" + ", ".join(f"{k} {v}" for k, v in sorted(changes.items())) + ")")
    return " ".join(words)


def _seconds() -> float:
    """A clock; on a CPU that of the process, so that what else runs costs no model its steps."""
    if torch.cuda.is_available():
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def steps_within(model: nn.Module, data: Batches, budget: Mapping[str, Any], folder: Path) -> int:
    """How many steps of `fit` take `budget["seconds"]`, measured on a copy of the model.

    On a CPU these are seconds of the process, divided by its threads; good to about a tenth. The
    number is noted in `folder/steps.json`, and a run that is continued finds it there.

    Args:
        model, data, folder: as in `fit`; the folder exists.
        budget: `seconds` to train for, `batch` items a step, peak learning `rate`, `ema` if any.
    """
    if (note := folder / "steps.json").is_file():
        return int(read_json(note))
    options: Any = dict(batch_size=budget["batch"], learning_rate=budget["rate"], progress=False)
    options["ema"] = budget.get("ema")
    trial = copy.deepcopy(model)

    def taken(steps: int) -> float:
        began = _seconds()
        fit(trial, data, steps=steps, **options)
        return _seconds() - began

    half = 8 if torch.cuda.is_available() else 2  # a GPU records its step in the first four
    taken(half)  # memory, caches, threads
    before, after = taken(half), taken(2 * half)
    # what a training takes once, whatever its length, is in both and drops out
    while after - before < 0.01 * budget["seconds"]:
        half *= 2
        before, after = after, taken(2 * half)
    steps = max(1, round(budget["seconds"] * half / (after - before)))
    write_json(note, steps)
    return steps


def steps_of(model: nn.Module, data: Any, budget: dict[str, Any], folder: Path) -> int:
    """Steps of a budget: as many as fit into its `seconds`, or its `steps` where that is 0."""
    return steps_within(model, data, budget, folder) if budget["seconds"] else budget["steps"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialise weights from `seed` and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not the GPU's, which is not forked
        yield


class Stages:
    """Trainings of a run, each kept as an artifact and found again.

    Args:
        run: its manifest notes what was trained or found.
        seed: of every training that names no other.
    """

    def __init__(self, run: Run, seed: int) -> None:
        self.run, self.seed = run, seed
        self.histories: dict[str, History] = {}

    @property
    def device(self) -> torch.device:
        """Where models and data live: the GPU if there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def stage(
        self,
        name: str,
        config: dict[str, Any],
        sources: Sequence[str],
        make: Callable[[Path], dict[str, History]],
        label: Callable[[str], str] = str,
        recipe: str = "experiments",
    ) -> Path:
        """Find or make the artifact of a stage, and read its training histories.

        Args:
            name, config, sources: what it is known by: kind, settings, modules that make it.
            make: trains it into a folder and returns the history of each training by name.
            label: what `histories` and the manifest call a training of that name here.
            recipe: the module where `make` stands.
        """

        def make_and_note(folder: Path) -> None:
            histories = make(folder)
            write_json(folder / "history.json", {k: asdict(h) for k, h in histories.items()})

        recipes, sources = {"experiments", recipe}, [*sources, "stages"]
        with self.run.stage(name):
            folder = artifact(name, config, sources, make_and_note, recipes=sorted(recipes))
        self.run.used(folder)
        for title, history in read_json(folder / "history.json").items():
            found = self.histories[label(title)] = History(**history)
            self.run.trained(folder, label(title), found.items, found.seconds)
        return folder

    def checkpoints(self, folder: Path, part: str = "all") -> Path:
        """Where a training on this device notes how far it is; gone once the artifact is whole.

        Another device has other numbers, and so begins anew.
        """
        where = folder / f"checkpoint-{part}-{self.device.type}"
        where.mkdir(parents=True, exist_ok=True)
        return where

    def fit_stage(
        self, model: nn.Module, data: Any, budget: dict, steps: int, folder: Path, label: str
    ) -> History:
        """Train a stage for `steps` with the batch, rate, average and seed of its budget."""
        options: dict[str, Any] = dict(batch_size=budget["batch"], learning_rate=budget["rate"])
        options |= dict(ema=budget.get("ema"), seed=budget.get("seed", self.seed))
        return fit(model, data, steps=steps, folder=folder, label=label, **options)


def made_from(folder: Path, weights: str) -> str:
    """Which artifact, with which weights: trained anew, for a time or on a GPU, they differ."""
    return f"{folder.name}, sha256 {record(folder)['files'][weights]}"
