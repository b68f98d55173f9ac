"""Items per second of a training step, ours and MultiVae's in turns.

Two ways to take a step. `trainer` is what a user meets: our `fit` against MultiVae's `BaseTrainer`
with its loader. `step` is the model alone: loss, gradients and the optimiser in a plain loop on
batches that are ready. The models take turns within each round, and the order is turned round in
the next, so that what else the machine does falls on all alike; the ratio is taken in each round.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.clock import WARM, StepClock
from benchmarks.contenders import contender
from benchmarks.settings import PEERS, Settings
from shala_lite.datasets import MultimodalDataset

# The same algorithm twice where there is one; MVTCAE's nearest of ours is the fused model.
PAIRS = (
    ("mopoe", "multivae_mopoe"),
    ("mmvaeplus", "multivae_mmvaeplus"),
    ("concat", "multivae_mvtcae"),
)


class _BareStep:
    """A plain loop over batches that are ready."""

    def __init__(self, model: Any, batches: list[dict[str, Any]], rate: float) -> None:
        self.model, self.batches = model, batches
        device = next(iter(batches[0]["x"].values())).device
        model.model.to(device).train()
        self.optimizer = torch.optim.AdamW(
            model.model.parameters(), lr=rate, weight_decay=0.0, fused=True
        )

    def timed(self, steps: int) -> StepClock:
        """So many steps, after two that warm up, and their time."""
        self.model.model.train()
        clock = StepClock(WARM + 1 + steps)
        for step in range(clock.steps):
            clock()
            loss = self.model.step_loss(self.batches[step % len(self.batches)], step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return clock


class _TrainerStep:
    """The training loop of the model's own library."""

    def __init__(self, model: Any, data: MultimodalDataset, precision: str) -> None:
        self.model, self.data, self.precision = model, model.data(data), precision

    def timed(self, steps: int) -> StepClock:
        """So many steps, after two that warm up, and their time."""
        clock = StepClock(WARM + 1 + steps)
        self.model.fit(self.data, clock.steps, clock, self.precision, progress=False)
        return clock


def measure(
    pair: tuple[str, str], train: MultimodalDataset, settings: Settings
) -> list[dict[str, Any]]:
    """Rows of `model`, `way`, `precision`, `items_per_second` (the median) and `rounds`.

    Theirs comes first where both are measured; a row of ours then has `ratio`, the median over
    rounds of their seconds over ours, and `cpu_ratio`, of the processor's seconds.
    """
    names = [name for name in pair[::-1] if name in settings.models]
    turns: dict[tuple[str, str, str], Any] = {}
    size = min(len(train), settings.batch * (settings.round_steps + WARM + 1))
    few = train.subset(slice(size))  # what one turn reads; theirs holds it once more, as floats
    batches = [
        few.batch(torch.arange(settings.batch) + start)
        for start in range(0, size - settings.batch + 1, settings.batch)
    ][:4]
    for name in names:
        fresh = contender(name, train.modalities, settings)
        turns[name, "step", "32-true"] = _BareStep(fresh, batches, settings.rate)
        precisions = ["32-true"] if name in PEERS else ["32-true", "bf16-mixed"]
        for precision in precisions:
            fresh = contender(name, train.modalities, settings)
            turns[name, "trainer", precision] = _TrainerStep(fresh, few, precision)
    clocks: dict[tuple[str, str, str], list[StepClock]] = {key: [] for key in turns}
    began = perf_counter()
    for round in range(settings.rounds):
        for key in list(turns) if round % 2 == 0 else list(turns)[::-1]:
            clocks[key].append(turns[key].timed(settings.round_steps))
        took = perf_counter() - began
        print(
            f"  {' and '.join(names)}: round {round + 1} of {settings.rounds}, {took:.0f} s",
            flush=True,
        )
    rows = []
    for (name, way, precision), each in clocks.items():
        row: dict[str, Any] = dict(model=name, way=way, precision=precision)
        row["rounds"] = [settings.batch / clock.seconds_per_step for clock in each]
        row["items_per_second"] = median(row["rounds"])
        theirs = clocks.get((pair[1], way, "32-true"))
        if name == pair[0] and theirs:
            both = list(zip(theirs, each))
            row["ratio"] = median(t.seconds_per_step / o.seconds_per_step for t, o in both)
            row["cpu_ratio"] = median(
                t.cpu_seconds_per_step / o.cpu_seconds_per_step for t, o in both
            )
        rows.append(row)
    return rows
