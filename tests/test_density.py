"""Density of the probability flow against closed forms."""

import pytest
import torch
from test_samplers import BASIS, COVARIANCE, EXACT, MU, GaussianVelocity, order, schedules
from tiny_models import rng

from shala_lite.density import log_density, value_and_divergence

NORMAL = torch.distributions.MultivariateNormal(MU, COVARIANCE)


@schedules
def test_the_density_of_a_gaussian_is_the_closed_form_at_order_two(schedule):
    found = [log_density(GaussianVelocity(schedule), EXACT, n) for n in (8, 16, 32, 64, 128)]
    error = torch.stack([(one - NORMAL.log_prob(EXACT)).square().mean().sqrt() for one in found])
    assert order(error) == pytest.approx(2, abs=0.1)
    assert error[-1] < 2e-4


def test_the_divergence_is_the_trace_of_the_jacobian():
    def velocity(z, t):
        return torch.sin(z @ BASIS) * t[:, None] + z.square()

    z, t = torch.randn(7, 3, dtype=torch.float64, generator=rng()), torch.full((7,), 0.3)
    found, divergence = value_and_divergence(velocity, z, t)
    torch.testing.assert_close(found, velocity(z, t))
    for one, time, expected in zip(z, t, divergence):
        slopes = torch.autograd.functional.jacobian(
            lambda x, time=time: velocity(x[None], time[None])[0], one
        )
        torch.testing.assert_close(slopes.trace(), expected)


def test_the_density_is_one_over_the_volume_that_the_flow_makes():
    """A velocity that is -a z scales noise by exp(a): log p loses 3 a, and by symmetry at any a."""
    z = torch.randn(7, 3, dtype=torch.float64, generator=rng())
    found = log_density(lambda z, t: -0.5 * z, z, 64)
    scale = torch.tensor(0.5).double().exp()
    expected = torch.distributions.Normal(0.0, scale).log_prob(z).sum(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_no_graph_is_kept_and_the_points_stay_as_they_are():
    z = torch.randn(7, 3, dtype=torch.float64, generator=rng()).requires_grad_()
    before = z.detach().clone()
    with torch.no_grad():
        assert not log_density(GaussianVelocity("rectified"), z, 2).requires_grad
    assert z.grad is None
    assert torch.equal(z, before)


def test_no_step_at_all_is_refused():
    with pytest.raises(ValueError, match="steps: 0, expected at least 1"):
        log_density(GaussianVelocity("rectified"), EXACT, 0)
