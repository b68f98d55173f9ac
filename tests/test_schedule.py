"""Schedules and their preconditioning, against derivatives and regressions."""

import math

import pytest
import torch
from tiny_models import rng

from shala_lite.schedule import SCHEDULES, clean_and_noise, diffuse, preconditioning

TIMES = torch.linspace(0, 1, 201, dtype=torch.float64)
every = pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=SCHEDULES)


@every
def test_time_runs_from_data_to_noise(schedule):
    z, noise = torch.randn(2, 5, 3, dtype=torch.float64, generator=rng())
    start, _ = diffuse(schedule, z, noise, torch.zeros(5, dtype=torch.float64))
    end, _ = diffuse(schedule, z, noise, torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(start, z)
    torch.testing.assert_close(end, noise)


@every
def test_signal_to_noise_ratio_falls_all_the_way(schedule):
    alpha, sigma = schedule.signal(TIMES)[0], schedule.noise(TIMES)[0]
    log_ratio = 2 * (alpha[1:-1].log() - sigma[1:-1].log())
    assert (log_ratio.diff() < 0).all()


@every
def test_derivatives_are_those_of_autograd(schedule):
    for part in (schedule.signal, schedule.noise):
        t = TIMES.clone().requires_grad_()
        value, derivative = part(t)
        (expected,) = torch.autograd.grad(value.sum(), t)
        torch.testing.assert_close(derivative, expected)


@every
def test_velocity_is_the_time_derivative_of_the_path(schedule):
    z, noise = torch.randn(2, len(TIMES), 4, dtype=torch.float64, generator=rng())
    t = TIMES.clone().requires_grad_()
    path = diffuse(schedule, z, noise, t)[0]
    slopes = [torch.autograd.grad(x.sum(), t, retain_graph=True)[0] for x in path.T]
    expected = torch.stack(slopes, dim=1)
    torch.testing.assert_close(diffuse(schedule, z, noise, TIMES)[1], expected)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_clean_and_noise_undo_the_mixing_at_every_time(schedule, dtype):
    """Both ends too, where z_t alone says nothing of the one or of the other."""
    z, noise = torch.randn(2, len(TIMES), 4, dtype=dtype, generator=rng())
    t = TIMES.to(dtype)
    found = clean_and_noise(schedule, *diffuse(schedule, z, noise, t), t)
    torch.testing.assert_close(found, (z, noise))


@every
@pytest.mark.parametrize("time", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_preconditioning_is_the_regression_on_standard_normal_data(schedule, time):
    """E[v given z_t] = c_skip z_t, what is left has variance c_out^2, and c_in z_t variance 1."""
    count = 100_000
    z, noise = torch.randn(2, count, 1, dtype=torch.float64, generator=rng())
    noisy, velocity = diffuse(schedule, z, noise, torch.full((count,), time, dtype=torch.float64))
    skip, out, scale = preconditioning(schedule, torch.tensor(time, dtype=torch.float64))
    residual = velocity - skip * noisy
    # jointly Gaussian: uncorrelated is independent, so the linear guess is the expectation
    correlation = (residual * noisy).mean() / (residual.std() * noisy.std())
    assert abs(correlation) < 5 / math.sqrt(count)
    assert residual.var().item() == pytest.approx(out.item() ** 2, rel=5 * math.sqrt(2 / count))
    assert (scale * noisy).var().item() == pytest.approx(1, rel=5 * math.sqrt(2 / count))


@every
def test_preconditioning_is_exact_in_expectation(schedule):
    """The same by algebra: covariances of (z_t, v) for unit variance, at every time."""
    alpha, alpha_dot = schedule.signal(TIMES)
    sigma, sigma_dot = schedule.noise(TIMES)
    skip, out, scale = preconditioning(schedule, TIMES)
    power, covariance = alpha**2 + sigma**2, alpha * alpha_dot + sigma * sigma_dot
    torch.testing.assert_close(skip * power, covariance)
    torch.testing.assert_close(scale**2 * power, torch.ones_like(TIMES))
    torch.testing.assert_close(out**2, alpha_dot**2 + sigma_dot**2 - covariance**2 / power)


def test_preserving_variance_leaves_nothing_to_skip():
    skip, _, scale = preconditioning(SCHEDULES["variance_preserving"](), TIMES)
    torch.testing.assert_close(skip, torch.zeros_like(TIMES))
    torch.testing.assert_close(scale, torch.ones_like(TIMES))


@every
def test_items_have_their_own_time(schedule):
    z, noise = torch.randn(2, 4, 3, generator=rng())
    t = torch.tensor([0.1, 0.9, 0.4, 0.0])
    for found, one_by_one in zip(
        diffuse(schedule, z, noise, t),
        zip(*(diffuse(schedule, z[i : i + 1], noise[i : i + 1], t[i : i + 1]) for i in range(4))),
    ):
        torch.testing.assert_close(found, torch.cat(one_by_one))
