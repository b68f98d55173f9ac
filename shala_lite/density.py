r"""Density of what the probability-flow ODE makes of N(0, I).

Along dz/dt = v(z, t) a density changes by d log p(z_t) / dt = -div v(z_t, t), so that

    log p(z_0) = log N(z_1; 0, I) + integral_0^1 div v(z_t, t) dt

with z_t the path from z_0 at t = 0 to z_1 at t = 1 (Chen et al. 2018, neural ODEs; Song et al.
2021, section 4.3). Both integrals are by Heun's method, whose error is O(dt^2). The divergence is
exact, one vector-Jacobian product a dimension: right for the few dimensions of a latent.
"""

from itertools import pairwise

import torch
from torch import Tensor

from shala_lite.distributions import standard_normal_log_prob
from shala_lite.samplers import Velocity, time_grid


def value_and_divergence(velocity: Velocity, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """v(z, t), shape (n, Z), and div v = sum_i dv_i / dz_i, shape (n,), without a graph.

    Each item's velocity may depend on its own z alone.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        v = velocity(z, t)
        total = torch.zeros_like(z[:, 0])
        for index, part in enumerate(v.unbind(1)):
            (slope,) = torch.autograd.grad(part.sum(), z, retain_graph=True)
            total += slope[:, index]
    return v.detach(), total


def log_density(velocity: Velocity, z: Tensor, steps: int) -> Tensor:
    """log p(z) in nats, shape (n,), at 2 Z `steps` vector-Jacobian products.

    Args:
        velocity: v(z, t), with z (n, Z) and t (n,), returns (n, Z), differentiable in z.
        z: points at t = 0, shape (n, Z).
        steps: number of equal time steps, at least 1.

    Raises:
        ValueError: fewer than one step.
    """
    times = time_grid(steps, z)[::-1]
    change = torch.zeros_like(z[:, 0])
    for t, after in pairwise(times):
        dt = after - t
        v, divergence = value_and_divergence(velocity, z, t)
        ahead, divergence_ahead = value_and_divergence(velocity, z + dt[:, None] * v, after)
        z = z + dt[:, None] * (v + ahead) / 2
        change = change + dt * (divergence + divergence_ahead) / 2
    return standard_normal_log_prob(z) + change
