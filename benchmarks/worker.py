"""One job of the benchmark in a process of its own, so that its memory is its own.

    python -m benchmarks.worker JOB SETTINGS.json RESULT.json

JOB is `judges`, `throughput:OURS:THEIRS`, or a model of `settings.MODELS`, which is trained, scored
and, if it is named first, checked against MultiVae's evaluator.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from time import process_time
from typing import Any

import torch

from benchmarks.contenders import contender, steps_in
from benchmarks.scores import agreement, quality
from benchmarks.settings import Settings
from benchmarks.throughput import measure
from shala_lite import evaluation, machine
from shala_lite.experiments import Experiment
from shala_lite.files import write_json


class _Run:
    """What `Experiment` asks of a run, with nothing written down."""

    def __init__(self, settings: Settings) -> None:
        self.parameters = dict(
            dataset="polymnist",
            source=settings.source,
            root=settings.root or None,
            seed=settings.seed,
            train_size=settings.train_size,
            test_size=settings.test_size,
            judge_width=settings.judge_width,
            judge_steps=settings.judge_steps,
        )

    def dataset(self, data: Any) -> None:
        """Noted nowhere."""

    def used(self, folder: Path) -> Path:
        """The artifact's folder, as it is."""
        return folder

    def trained(self, folder: Path, label: str, items: int, seconds: float) -> None:
        """Noted nowhere."""

    def stage(self, name: str) -> Any:
        """Not measured."""
        return nullcontext()


def experiment(settings: Settings) -> Experiment:
    """Data and judges as the chapters have them; the judges are an artifact they share."""
    return Experiment(_Run(settings))  # type: ignore[arg-type]


def judges(settings: Settings) -> dict[str, Any]:
    """Train the judges, or find them; what they say of real sets: the ceiling and the floor."""
    stages = experiment(settings)
    found, test = stages.judges(), stages.data("test")
    scores = evaluation.scoreboard(
        None,  # type: ignore[arg-type]  # no latents, no decoder
        found,
        {},
        stages.data("train").subset(slice(settings.test_size)),
        test,
    )
    return {
        "scores": scores,
        "data": {split: stages.data(split).fingerprint for split in ("train", "test")},
        "note": test.note,
    }


def train(name: str, settings: Settings) -> dict[str, Any]:
    """Train one model for its seconds and score it."""
    stages = experiment(settings)
    judge, test, val = stages.judges(), stages.data("test"), stages.data("val")
    dataset = stages.data("train")
    modalities = dataset.modalities
    model: Any = contender(name, modalities, settings)
    model.model.to(stages.device)
    data = model.data(dataset)
    if data is not dataset:  # MultiVae's copy is enough
        stages.data.cache_clear()
        del dataset
    with_prior = name.endswith("+prior")
    share = 1 - settings.prior_share if with_prior else 1.0

    def calibrate(steps: int, clock: Any) -> None:
        contender(name, modalities, settings).fit(data, steps, clock, progress=False)

    steps = steps_in(share * settings.seconds, calibrate)
    began = process_time()
    with machine.Meter() as meter:
        model.fit(data, steps)
        if with_prior:
            latents = model.latents(data)
            prior_steps = steps_in(
                settings.prior_share * settings.seconds,
                lambda count, clock: model.fit_prior(
                    model.new_prior(latents), latents, count, clock, progress=False
                ),
            )
            prior = model.new_prior(latents)
            model.fit_prior(prior, latents, prior_steps)
            model.prior = prior.eval()
    result = {"model": name, "steps": steps, "parameters": model.parameters, **meter.report()}
    result["cpu_seconds"] = round(process_time() - began, 3)
    if with_prior:
        model.choose_guidance(judge, val)
        result |= {"prior_steps": prior_steps, "guidance": model.guidance}
    result["scores"] = quality(model, judge, test, settings.seed)
    if name == settings.models[0] and find_spec("multivae"):
        result["agreement"] = agreement(model, judge, test, settings.seed)
    return result


def do(job: str, settings: Settings) -> Any:
    """Result of one job."""
    kind, *pair = job.split(":")
    if kind == "judges":
        return judges(settings)
    if kind == "throughput":
        return measure((pair[0], pair[1]), experiment(settings).data("train"), settings)
    return train(kind, settings)


def main(job: str, asked: str, answer: str) -> None:
    """Do one job and write its result."""
    given = json.loads(Path(asked).read_text())
    settings = Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    torch.set_num_threads(settings.threads)
    write_json(Path(answer), {"result": do(job, settings), **machine.device()})


if __name__ == "__main__":
    main(*sys.argv[1:])
