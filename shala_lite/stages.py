"""How each stage of an experiment is named, seeded and budgeted, unless a run says else."""

import copy
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shala_lite.fusion import FUSIONS
from shala_lite.training import Batches, fit

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
        return int(json.loads(note.read_text()))
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
    note.write_text(json.dumps(steps))
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
