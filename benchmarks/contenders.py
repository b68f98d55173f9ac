"""Every model of the comparison behind one interface, and how many steps fit into its seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.clock import WARM, StepClock
from benchmarks.ours import Ours
from benchmarks.peer import Peer
from benchmarks.settings import PEERS, Settings
from shala_lite.modalities import Modality

CALIBRATION = 12  # timed steps of a throw-away model, to turn seconds into steps


def contender(name: str, modalities: Sequence[Modality], settings: Settings) -> Ours | Peer:
    """An untrained model by its name in `settings.MODELS`."""
    kind: Any = Peer if name in PEERS else Ours
    return kind(name, modalities, settings)


def steps_in(seconds: float, train: Callable[[int, StepClock], None]) -> int:
    """How many steps of `train(steps, clock)` take so many seconds; at least one.

    The learning rate follows the share of the steps that is done, so their number has to be known
    before the first. On a CPU these are seconds of the process's own computing on all its threads:
    what else the machine does costs no model its steps.
    """
    steps = WARM + 1 + CALIBRATION
    clock = StepClock(steps)
    train(steps, clock)
    if torch.cuda.is_available():
        each = clock.seconds_per_step
    else:
        each = clock.cpu_seconds_per_step / torch.get_num_threads()
    return max(1, round(seconds / each))
