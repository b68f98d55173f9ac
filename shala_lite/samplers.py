r"""Samplers: integrate the probability-flow ODE dz/dt = v(z, t) from noise to data.

    Euler   z' = z - dt v(z, t)                                          error O(dt),   1 call
    Heun    z' = z - dt/2 (v(z, t) + v(z - dt v(z, t), t - dt))          error O(dt^2), 2 calls

Heun's last step is an Euler step, as in EDM (Karras et al. 2022, algorithm 1), so that `steps`
steps cost 2 steps - 1 evaluations.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]


class Trajectory(NamedTuple):
    """Every state from noise to data, (steps + 1) tensors of (n, Z), and the calls it took."""

    states: list[Tensor]
    calls: int


def _times(steps: int, like: Tensor) -> list[Tensor]:
    if steps < 1:
        raise ValueError(f"steps: {steps}, expected at least 1")
    grid = torch.linspace(1, 0, steps + 1, device=like.device, dtype=like.dtype)
    return [t.expand(len(like)) for t in grid]


def euler(velocity: Velocity, noise: Tensor, steps: int) -> Trajectory:
    """First-order sampler, one evaluation a step.

    Args:
        velocity: v(z, t), with z (n, Z) and t (n,), returns (n, Z).
        noise: starting point at t = 1, shape (n, Z).
        steps: number of equal time steps, at least 1.
    """
    times, states = _times(steps, noise), [noise]
    for t, after in pairwise(times):
        z = states[-1]
        states.append(z + (after - t)[:, None] * velocity(z, t))
    return Trajectory(states, calls=steps)


def heun(velocity: Velocity, noise: Tensor, steps: int) -> Trajectory:
    """Second-order sampler, two evaluations a step and one for the last.

    Arguments as in `euler`.
    """
    times, states, calls = _times(steps, noise), [noise], 0
    for index, (t, after) in enumerate(pairwise(times)):
        z, dt = states[-1], (after - t)[:, None]
        slope = velocity(z, t)
        calls += 1
        if index < steps - 1:
            slope = (slope + velocity(z + dt * slope, after)) / 2
            calls += 1
        states.append(z + dt * slope)
    return Trajectory(states, calls)


SAMPLERS = {"euler": euler, "heun": heun}
