r"""Samplers: from noise to data, t = 1 to t = 0, in equal steps from t to s < t.

Two follow the probability-flow ODE dz/dt = v(z, t), whatever the schedule:

    euler      z_s = z_t + (s - t) v(z_t, t)                                   error O(dt)
    heun       the mean of the slopes at both ends of that step                error O(dt^2)

Two know that z_t = alpha_t x + sigma_t e, and read x^ = E[x | z_t] and e^ = E[e | z_t] from v. With
rho = (alpha_t sigma_s) / (alpha_s sigma_t), the square root of the ratio of the two signal-to-noise
ratios, and h = -log rho, half the step of their logarithm:

    ancestral  z_s = alpha_s x^ + sigma_s (rho e^ + sqrt(1 - rho^2) n)         error O(dt), in law
    dpmpp_2m   z_s = alpha_s x^ + sigma_s e^ + alpha_s (1 - rho) (h / 2h_0) (x^ - x^_0)
                                                                     error O(dt^2 log(1 / dt))

`ancestral` draws n ~ N(0, I) at every step: it is the posterior q(z_s | z_t, x^) of the forward
process (Ho et al. 2020; Kingma et al. 2021 for any schedule), with z_t written as alpha_t x^ +
sigma_t e^. As rho is 0 where alpha_t or sigma_s is, neither end of time needs care.

`dpmpp_2m` is DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): the integral of an x^ that is linear
in the log-SNR, up to O(h^3), from its value x^_0 one step h_0 before. Without the last term it is
DDIM (Song et al. 2021), which it takes where a log-SNR step, of the past or the next, is infinite.
The logarithm in its error is that of equal steps in t: k steps from either end of time h is about
1/k, however small dt is, the error of the step dt^2 / k, and their sum harmonic.

All cost one evaluation of the velocity a step, but for `heun`: its last step is an Euler step, as
in EDM (Karras et al. 2022, algorithm 1), so that `steps` steps cost 2 steps - 1.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from shala_lite.distributions import standard_normal_like
from shala_lite.schedule import Schedule, clean_and_noise

Velocity = Callable[[Tensor, Tensor], Tensor]
Random = torch.Generator | None


class Trajectory(NamedTuple):
    """Every state from noise to data, (steps + 1) tensors of (n, Z), and the calls it took."""

    states: list[Tensor]
    calls: int


def time_grid(steps: int, like: Tensor) -> list[Tensor]:
    """Equal steps from t = 1 to t = 0, (steps + 1) tensors of (n,) for a `like` of (n, Z).

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}, expected at least 1")
    grid = torch.linspace(1, 0, steps + 1, device=like.device, dtype=like.dtype)
    return [t.expand(len(like)) for t in grid]


def euler(
    velocity: Velocity, noise: Tensor, steps: int, schedule: Schedule, generator: Random = None
) -> Trajectory:
    """First-order sampler of the ODE.

    Args:
        velocity: v(z, t), with z (n, Z) and t (n,), returns (n, Z).
        noise: starting point at t = 1, shape (n, Z).
        steps: number of equal time steps, at least 1.
        schedule: of the velocity; not used here, the velocity says it all.
        generator: source of what the steps draw; not used here, where nothing is drawn.

    Raises:
        ValueError: fewer than one step.
    """
    states = [noise]
    for t, after in pairwise(time_grid(steps, noise)):
        z = states[-1]
        states.append(z + (after - t)[:, None] * velocity(z, t))
    return Trajectory(states, calls=steps)


def heun(
    velocity: Velocity, noise: Tensor, steps: int, schedule: Schedule, generator: Random = None
) -> Trajectory:
    """Second-order sampler of the ODE, two evaluations a step and one for the last.

    Arguments and errors as in `euler`.
    """
    states, calls = [noise], 0
    for index, (t, after) in enumerate(pairwise(time_grid(steps, noise))):
        z, dt = states[-1], (after - t)[:, None]
        slope = velocity(z, t)
        calls += 1
        if index < steps - 1:
            slope = (slope + velocity(z + dt * slope, after)) / 2
            calls += 1
        states.append(z + dt * slope)
    return Trajectory(states, calls)


def _scales(schedule: Schedule, t: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha_s, sigma_s and rho of the module's docstring, each (n, 1)."""
    alpha, sigma = schedule.signal(after[:, None])[0], schedule.noise(after[:, None])[0]
    before = schedule.signal(t[:, None])[0] / schedule.noise(t[:, None])[0]
    return alpha, sigma, before * sigma / alpha


def ancestral(
    velocity: Velocity, noise: Tensor, steps: int, schedule: Schedule, generator: Random = None
) -> Trajectory:
    """Stochastic sampler: each step draws from the forward process's posterior at x^.

    Arguments and errors as in `euler`, and the generator is the source of what each step draws.
    """
    states = [noise]
    for t, after in pairwise(time_grid(steps, noise)):
        clean, mixed = clean_and_noise(schedule, states[-1], velocity(states[-1], t), t)
        alpha, sigma, rho = _scales(schedule, t, after)
        fresh = standard_normal_like(noise.shape, noise, generator)
        states.append(alpha * clean + sigma * (rho * mixed + (1 - rho**2).sqrt() * fresh))
    return Trajectory(states, calls=steps)


def dpmpp_2m(
    velocity: Velocity, noise: Tensor, steps: int, schedule: Schedule, generator: Random = None
) -> Trajectory:
    """DPM-Solver++(2M): second order in the log-SNR at one evaluation a step.

    Arguments and errors as in `euler`.
    """
    states = [noise]
    before = h_before = noise  # both are set before they are read
    for index, (t, after) in enumerate(pairwise(time_grid(steps, noise))):
        clean, mixed = clean_and_noise(schedule, states[-1], velocity(states[-1], t), t)
        alpha, sigma, rho = _scales(schedule, t, after)
        z, h = alpha * clean + sigma * mixed, -rho.log()
        # the log-SNR is infinite at both ends, and so is the first step, the last, and the
        # second one's past
        if 1 < index < steps - 1:
            z = z + alpha * (1 - rho) * h / (2 * h_before) * (clean - before)
        states.append(z)
        before, h_before = clean, h
    return Trajectory(states, calls=steps)


SAMPLERS = {"euler": euler, "heun": heun, "ancestral": ancestral, "dpmpp_2m": dpmpp_2m}
