r"""Noise schedules: how signal fades and noise grows with diffusion time.

    z_t = alpha_t z + sigma_t e,     e ~ N(0, I),   t in [0, 1]
    v_t = dz_t/dt = alpha'_t z + sigma'_t e

t = 0 is data, t = 1 is noise; the signal-to-noise ratio alpha^2 / sigma^2 falls monotonically.
The velocity v_t is what the denoiser predicts: the probability-flow ODE is dz/dt = E[v_t | z_t].

For data of unit variance the best linear guess of v_t from z_t, and what it leaves over, are

    c_skip = (alpha alpha' + sigma sigma') / s,   c_out = |alpha' sigma - sigma' alpha| / sqrt(s),
    c_in = 1 / sqrt(s),                            s = alpha^2 + sigma^2

so a network F with input and target of unit variance gives v = c_skip z_t + c_out F(c_in z_t, t)
(the reasoning of Karras et al. 2022, EDM, applied to the velocity). With F = 0 this is exact for
z ~ N(0, I).

z_t and v_t together say what z and e are: the first two equations, solved for them, give

    z = (sigma' z_t - sigma v_t) / d,   e = (alpha v_t - alpha' z_t) / d,
    d = alpha sigma' - alpha' sigma

and d is a constant of either schedule: 1 on the straight line, pi / 2 on the quarter circle.
"""

import math

import torch
from torch import Tensor


class Rectified:
    """Straight lines from data to noise: alpha = 1 - t, sigma = t (Liu et al. 2022)."""

    def signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and its derivative alpha'_t."""
        return 1 - t, -torch.ones_like(t)

    def noise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sigma_t and its derivative sigma'_t."""
        return t, torch.ones_like(t)


class VariancePreserving:
    """A quarter circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol and Dhariwal 2021)."""

    def signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and its derivative alpha'_t."""
        angle = t * math.pi / 2
        return angle.cos(), -angle.sin() * math.pi / 2

    def noise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sigma_t and its derivative sigma'_t."""
        angle = t * math.pi / 2
        return angle.sin(), angle.cos() * math.pi / 2


Schedule = Rectified | VariancePreserving
SCHEDULES: dict[str, type[Schedule]] = {
    "rectified": Rectified,
    "variance_preserving": VariancePreserving,
}


def diffuse(schedule: Schedule, z: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latent z_t and its velocity v_t, each (B, Z).

    Args:
        schedule: gives alpha and sigma.
        z: clean latent, shape (B, Z).
        noise: standard normal, shape (B, Z).
        t: time in [0, 1], shape (B,).
    """
    alpha, alpha_dot = schedule.signal(t[:, None])
    sigma, sigma_dot = schedule.noise(t[:, None])
    return alpha * z + sigma * noise, alpha_dot * z + sigma_dot * noise


def preconditioning(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in of the module's docstring, each the shape of t."""
    alpha, alpha_dot = schedule.signal(t)
    sigma, sigma_dot = schedule.noise(t)
    power = alpha.square() + sigma.square()
    skip = (alpha * alpha_dot + sigma * sigma_dot) / power
    out = (alpha_dot * sigma - sigma_dot * alpha).abs() / power.sqrt()
    return skip, out, power.rsqrt()


def clean_and_noise(schedule: Schedule, z: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """What `diffuse` mixed, by the module's last equation; of E[v given z_t], their expectations.

    Nothing here is divided by alpha or sigma, so that both ends of time are as good as the middle.

    Args:
        schedule: gives alpha and sigma.
        z: noisy latent z_t, shape (B, Z).
        v: its velocity, shape (B, Z).
        t: time in [0, 1], shape (B,).

    Returns:
        The clean latent and the noise, each (B, Z).
    """
    alpha, alpha_dot = schedule.signal(t[:, None])
    sigma, sigma_dot = schedule.noise(t[:, None])
    d = alpha * sigma_dot - alpha_dot * sigma
    return (sigma_dot * z - sigma * v) / d, (alpha * v - alpha_dot * z) / d
