"""How long a training step takes, warm-up excluded, in whichever training loop."""

from __future__ import annotations

from time import perf_counter, process_time

import torch

# Steps of every turn that are not timed: caches, allocators, an optimiser's state, and on a GPU the
# record of a step.
WARM = 5 if torch.cuda.is_available() else 2


class StepClock:
    """Called once in every step, always at the same place; times steps `WARM` to the last.

    Args:
        steps: how often it will be called, at least `WARM` + 2.
    """

    def __init__(self, steps: int) -> None:
        if steps < WARM + 2:
            raise ValueError(f"steps: {steps}, expected at least {WARM + 2}")
        self.steps, self.calls = steps, 0
        self.times: list[tuple[float, float]] = []

    def __call__(self) -> None:
        if self.calls in (WARM, self.steps - 1):
            if torch.cuda.is_initialized():  # what was asked of the device has to be done
                torch.cuda.synchronize()
            self.times.append((perf_counter(), process_time()))
        self.calls += 1

    def _per_step(self, which: int) -> float:
        if len(self.times) != 2:
            raise RuntimeError(f"called {self.calls} times, expected {self.steps}")
        return (self.times[1][which] - self.times[0][which]) / (self.steps - 1 - WARM)

    @property
    def seconds_per_step(self) -> float:
        """Mean over the timed steps."""
        return self._per_step(0)

    @property
    def cpu_seconds_per_step(self) -> float:
        """The same in seconds of this process's own computing: others on the machine matter less.

        On a GPU it says nothing of the model.
        """
        return self._per_step(1)
