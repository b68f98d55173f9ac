"""The diagonal Gaussian and the Laplace likelihood, held to their definitions."""

import math

import pytest
import torch
from tiny_models import rng
from torch.distributions import Independent, Laplace, Normal, kl_divergence

from shala_lite.distributions import DiagonalGaussian, laplace_log_likelihood

MEAN = torch.tensor([[0.0, 0.0, 0.0], [1.5, -0.3, 0.2], [-2.0, 0.1, 4.0]])
STD = torch.tensor([[1.0, 1.0, 1.0], [0.3, 2.0, 1.1], [0.05, 0.7, 1.9]])
GAUSSIAN = DiagonalGaussian(MEAN, STD)


def test_kl_equals_its_monte_carlo_estimate():
    count = 40_000
    q = DiagonalGaussian(MEAN.repeat(count, 1, 1), STD.repeat(count, 1, 1))
    z = q.sample(rng())
    ratio = q.log_prob(z) - Normal(0, 1).log_prob(z).sum(-1)
    error = ratio.std(0) / math.sqrt(count)
    assert (ratio.mean(0) - GAUSSIAN.kl()).abs().le(5 * error + 1e-5).all()


def test_kl_is_zero_for_the_standard_normal_alone():
    kl = GAUSSIAN.kl()
    assert kl[0] == 0
    assert (kl[1:] > 0).all()


def test_kl_and_log_prob_equal_those_of_torch():
    reference = Independent(Normal(MEAN, STD), 1)
    standard = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    z = 3 * torch.randn(3, 3, generator=rng())
    torch.testing.assert_close(GAUSSIAN.log_prob(z), reference.log_prob(z))
    torch.testing.assert_close(GAUSSIAN.kl(), kl_divergence(reference, standard))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-2.0, 0.1), (5.0, 3.0)])
def test_density_of_the_gaussian_integrates_to_one(mean, std):
    grid = torch.linspace(mean - 10 * std, mean + 10 * std, 4001, dtype=torch.float64)
    one = torch.ones(len(grid), 1, dtype=torch.float64)
    density = DiagonalGaussian(mean * one, std * one).log_prob(grid[:, None]).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("scale", [0.05, 1.0, 4.0])
def test_density_of_the_laplace_integrates_to_one(scale):
    grid = torch.linspace(-40 * scale, 40 * scale, 80_001, dtype=torch.float64)[:, None]
    density = laplace_log_likelihood(grid, torch.zeros_like(grid), scale).exp()
    assert torch.trapezoid(density, grid[:, 0]).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5, 5), (4, 1)])
def test_laplace_likelihood_equals_that_of_torch(shape):
    x, mean = torch.rand(2, *shape, generator=rng())
    expected = Laplace(mean, 0.2).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(laplace_log_likelihood(x, mean, 0.2), expected)


def test_laplace_likelihood_is_highest_at_the_mean_and_at_the_mean_distance():
    x, mean = torch.rand(2, 1, 500, dtype=torch.float64, generator=rng())
    distance = (x - mean).abs().mean().item()
    at = laplace_log_likelihood(x, mean, distance)
    for factor in (0.8, 0.99, 1.01, 1.2):
        assert laplace_log_likelihood(x, mean, factor * distance) < at
    assert laplace_log_likelihood(mean, mean, 0.2) > laplace_log_likelihood(x, mean, 0.2)


def test_samples_have_the_mean_and_the_standard_deviation():
    count = 20_000
    z = DiagonalGaussian(MEAN.repeat(count, 1, 1), STD.repeat(count, 1, 1)).sample(rng())
    assert (z.mean(0) - MEAN).abs().le(5 * STD / math.sqrt(count)).all()
    assert (z.std(0) / STD - 1).abs().le(5 / math.sqrt(2 * count)).all()


def test_samples_are_differentiable_in_mean_and_standard_deviation():
    mean, std = MEAN.clone().requires_grad_(), STD.clone().requires_grad_()
    z = DiagonalGaussian(mean, std).sample(rng())
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones_like(MEAN))
    torch.testing.assert_close(std.grad, ((z - mean) / std).detach())  # the noise


def test_one_generator_gives_one_sample_and_the_global_state_is_left_alone():
    before = torch.random.get_rng_state()
    assert torch.equal(GAUSSIAN.sample(rng(3)), GAUSSIAN.sample(rng(3)))
    assert not torch.equal(GAUSSIAN.sample(rng(3)), GAUSSIAN.sample(rng(4)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_indexing_takes_items():
    chosen = GAUSSIAN[torch.tensor([2, 0])]
    assert torch.equal(chosen.kl(), GAUSSIAN.kl()[[2, 0]])


def test_mean_and_std_of_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(3, 2\)"):
        DiagonalGaussian(MEAN, STD[:, :2])
