"""Samplers against a Gaussian, whose probability flow is known in closed form.

For z ~ N(mu, S) the noisy latent has covariance C_t = alpha^2 S + sigma^2 I, the velocity is

    v(z_t, t) = alpha' mu + (alpha' alpha S + sigma' sigma I) C_t^-1 (z_t - alpha mu)

and, as all C_t share eigenvectors, the flow takes noise e to mu + S^(1/2) e.
"""

import math

import pytest
import torch
from tiny_models import rng

from shala_lite.samplers import SAMPLERS, euler, heun
from shala_lite.schedule import SCHEDULES

MU = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
BASIS = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=rng(1)))[0]
VALUES = torch.tensor([0.2, 1.3, 4.0], dtype=torch.float64)
COVARIANCE = BASIS @ VALUES.diag() @ BASIS.T
ROOT = BASIS @ VALUES.sqrt().diag() @ BASIS.T
NOISE = torch.randn(64, 3, dtype=torch.float64, generator=rng(2))
EXACT = MU + NOISE @ ROOT
STEPS = (8, 16, 32, 64, 128)

schedules = pytest.mark.parametrize("schedule", list(SCHEDULES))


class GaussianVelocity:
    """The exact velocity; counts its calls and notes the times."""

    def __init__(self, schedule):
        self.schedule = SCHEDULES[schedule]()
        self.times = []

    def __call__(self, z, t):
        assert t.shape == (len(z),)
        assert (t == t[0]).all()
        self.times.append(t[0].item())
        alpha, alpha_dot = self.schedule.signal(t[0])
        sigma, sigma_dot = self.schedule.noise(t[0])
        unit = torch.eye(3, dtype=z.dtype)
        spread = alpha**2 * COVARIANCE + sigma**2 * unit
        gain = alpha * alpha_dot * COVARIANCE + sigma * sigma_dot * unit
        return alpha_dot * MU + torch.linalg.solve(spread, (z - alpha * MU).T).T @ gain


def errors(sampler, schedule):
    found = [SAMPLERS[sampler](GaussianVelocity(schedule), NOISE, n).states[-1] for n in STEPS]
    return torch.stack([(z - EXACT).square().mean().sqrt() for z in found])


@schedules
def test_the_closed_form_is_the_flow_of_the_densities(schedule):
    """So that the laws below rest on nothing unproved: E[v given z_t], by Monte Carlo."""
    velocity, count = GaussianVelocity(schedule), 200_000
    z = MU + torch.randn(count, 3, dtype=torch.float64, generator=rng(3)) @ ROOT
    e = torch.randn(count, 3, dtype=torch.float64, generator=rng(4))
    t = torch.full((count,), 0.4, dtype=torch.float64)
    alpha, alpha_dot = velocity.schedule.signal(t[0])
    sigma, sigma_dot = velocity.schedule.noise(t[0])
    noisy = alpha * z + sigma * e
    residual = alpha_dot * z + sigma_dot * e - velocity(noisy, t)
    # jointly Gaussian: a residual without mean and correlation makes it the expectation
    centred = noisy - noisy.mean(0)
    correlation = residual.T @ centred / count / residual.std(0)[:, None] / noisy.std(0)
    assert correlation.abs().max() < 5 / math.sqrt(count)
    assert (residual.mean(0) / residual.std(0)).abs().max() < 5 / math.sqrt(count)


@schedules
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_samplers_converge_to_the_exact_map_at_their_order(sampler, order, schedule):
    error = errors(sampler, schedule)
    x = torch.tensor(STEPS, dtype=torch.float64).log()[2:]
    y = error.log()[2:]
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert -slope.item() == pytest.approx(order, abs=0.15)
    assert error[-1] < (0.05 if order == 1 else 1e-3)


@schedules
def test_heun_is_better_than_euler_at_equal_cost(schedule):
    cheap = heun(GaussianVelocity(schedule), NOISE, 16)
    same = euler(GaussianVelocity(schedule), NOISE, cheap.calls)
    assert (cheap.states[-1] - EXACT).norm() < (same.states[-1] - EXACT).norm() / 2


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize(
    ("sampler", "calls"), [("euler", lambda n: n), ("heun", lambda n: 2 * n - 1)]
)
def test_calls_counted_are_calls_made(sampler, calls, steps):
    velocity = GaussianVelocity("rectified")
    found = SAMPLERS[sampler](velocity, NOISE, steps)
    assert found.calls == len(velocity.times) == calls(steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_times_fall_from_noise_and_never_reach_data(sampler):
    """At t = 0 there is nothing left to denoise, and networks are not trained there."""
    velocity = GaussianVelocity("rectified")
    SAMPLERS[sampler](velocity, NOISE, 6)
    assert velocity.times[0] == 1
    assert velocity.times == sorted(velocity.times, reverse=True)
    assert min(velocity.times) > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_trajectory_starts_at_the_noise_and_keeps_every_state(sampler):
    before = NOISE.clone()
    states = SAMPLERS[sampler](GaussianVelocity("rectified"), NOISE, 5).states
    assert len(states) == 6
    assert torch.equal(states[0], before)
    assert torch.equal(NOISE, before)
    distances = [(z - EXACT).norm() for z in states]
    assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step_is_an_euler_step(sampler):
    velocity = GaussianVelocity("variance_preserving")
    one = SAMPLERS[sampler](velocity, NOISE, 1).states[-1]
    torch.testing.assert_close(one, NOISE - velocity(NOISE, torch.ones(64, dtype=NOISE.dtype)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_constant_velocity_is_followed_exactly(sampler):
    states = SAMPLERS[sampler](lambda z, t: MU.expand_as(z), NOISE, 7).states
    torch.testing.assert_close(states[-1], NOISE - MU)


def test_heun_follows_a_velocity_linear_in_time_up_to_its_last_step():
    """The trapezoid rule is exact there; only the Euler step of length 1/n leaves an error."""
    states = heun(lambda z, t: t[:, None].expand_as(z), NOISE, 4).states
    torch.testing.assert_close(states[3], NOISE - (1 - 0.25**2) / 2)
    torch.testing.assert_close(states[4], states[3] - 0.25**2)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [0, -3])
def test_no_step_at_all_is_refused(sampler, steps):
    with pytest.raises(ValueError, match=f"steps: {steps}, expected at least 1"):
        SAMPLERS[sampler](GaussianVelocity("rectified"), NOISE, steps)
