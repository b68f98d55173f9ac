"""Gaussians, their mixtures and products, and the Laplace likelihood, held to their definitions."""

import math

import pytest
import torch
from tiny_models import rng
from torch.distributions import (
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from shala_lite.distributions import (
    DiagonalGaussian,
    GaussianMixture,
    laplace_log_likelihood,
    product_of_gaussians,
)

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


COMPONENTS = torch.randn(4, 3, 2, generator=rng(1), dtype=torch.float64)
WIDTHS = 0.3 + torch.rand(4, 3, 2, generator=rng(2), dtype=torch.float64)
WEIGHTS = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.0, 0.4, 0.6], [1 / 3, 1 / 3, 1 / 3]])
MIXTURE = GaussianMixture(COMPONENTS, WIDTHS, WEIGHTS.double())


def torch_mixture():
    parts = Independent(Normal(COMPONENTS, WIDTHS), 1)
    return MixtureSameFamily(Categorical(WEIGHTS.double()), parts)


def test_the_density_and_moments_of_a_mixture_equal_those_of_torch():
    z = 2 * torch.randn(4, 2, generator=rng(), dtype=torch.float64)
    reference = torch_mixture()
    torch.testing.assert_close(MIXTURE.log_prob(z), reference.log_prob(z))
    torch.testing.assert_close(MIXTURE.mean, reference.mean)
    torch.testing.assert_close(MIXTURE.std, reference.stddev)


def test_the_density_of_a_mixture_takes_many_points_an_item():
    z = torch.randn(5, 4, 2, generator=rng(), dtype=torch.float64)
    torch.testing.assert_close(
        MIXTURE.log_prob(z), torch.stack([MIXTURE.log_prob(each) for each in z])
    )


def test_samples_of_a_mixture_have_its_moments_and_never_come_from_what_is_not_there():
    count = 40_000
    many = MIXTURE[torch.arange(4).repeat_interleave(count)]
    z = many.sample(rng()).view(4, count, 2)
    assert (z.mean(1) - MIXTURE.mean).abs().le(5 * MIXTURE.std / math.sqrt(count)).all()
    assert (z.std(1) / MIXTURE.std - 1).abs().le(0.03).all()
    # item 1 is component 1 alone: its draws are that Gaussian's
    alone = (z[1] - COMPONENTS[1, 1]) / WIDTHS[1, 1]
    assert abs(alone.square().mean() - 1) < 0.03
    # item 0 with its components moved far apart: counts are the weights
    far = GaussianMixture(
        torch.tensor([[[-100.0], [0.0], [100.0]]]), torch.ones(1, 3, 1), WEIGHTS[:1]
    )
    where = far[torch.zeros(count, dtype=torch.long)].sample(rng()).div(100).round().flatten()
    shares = torch.stack([(where == side).float().mean() for side in (-1, 0, 1)])
    torch.testing.assert_close(shares, WEIGHTS[0], atol=0.015, rtol=0)


def test_the_rate_of_a_mixture_is_its_divergence_on_average():
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    one = GaussianMixture(COMPONENTS[:1, :, :1], WIDTHS[:1, :, :1], WEIGHTS[:1].double())
    log_q, log_p = one.log_prob(grid[:, None])[:, 0], Normal(0, 1).log_prob(grid[:, 0])
    exact = torch.trapezoid(log_q.exp() * (log_q - log_p), grid[:, 0])
    many = one[torch.zeros(40_000, dtype=torch.long)]
    found = many.rate(many.sample(rng()))
    assert (found.mean() - exact).abs() < 5 * found.std() / 200
    torch.testing.assert_close(GAUSSIAN.rate(MEAN), GAUSSIAN.kl())


def test_a_mixture_of_one_is_the_gaussian():
    one = GaussianMixture(MEAN[:, None], STD[:, None], torch.ones(3, 1))
    z = torch.randn(3, 3, generator=rng())
    torch.testing.assert_close(one.log_prob(z), GAUSSIAN.log_prob(z))
    torch.testing.assert_close(one.mean, MEAN)
    torch.testing.assert_close(one.std, STD)


def test_items_of_a_posterior_can_be_taken_and_put_together():
    for q in (GAUSSIAN, MIXTURE):
        again = type(q).cat([q[:1], q[1:]])
        torch.testing.assert_close(again.mean, q.mean)
        torch.testing.assert_close(again.std, q.std)


def test_a_product_of_gaussians_is_the_closed_form():
    """On a grid: the product of densities, normalised, is the density of the product."""
    experts = DiagonalGaussian(COMPONENTS[:, :, :1], WIDTHS[:, :, :1])
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0]], dtype=torch.bool)
    grid = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    for prior in (False, True):
        product = product_of_gaussians(experts, present, prior=prior)
        log = (Normal(experts.mean, experts.std).log_prob(grid) * present[..., None]).sum(1)
        log = log + (Normal(0, 1).log_prob(grid) if prior else 0)
        log = log - torch.trapezoid(log.exp(), grid)[:, None].log()
        expected = Normal(product.mean, product.std).log_prob(grid)
        torch.testing.assert_close(log.exp(), expected.exp(), atol=1e-9, rtol=0)


def test_a_missing_expert_leaves_the_product_of_the_rest_with_the_prior():
    experts = DiagonalGaussian(COMPONENTS, WIDTHS)
    everything = torch.ones(4, 3, dtype=torch.bool)
    without = everything.clone()
    without[:, 1] = False
    rest = DiagonalGaussian(COMPONENTS[:, [0, 2]], WIDTHS[:, [0, 2]])
    found = product_of_gaussians(experts, without, prior=True)
    expected = product_of_gaussians(rest, everything[:, :2], prior=True)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.std, expected.std)
    nothing = product_of_gaussians(experts, ~everything, prior=True)
    assert (nothing.mean == 0).all()
    assert (nothing.std == 1).all()


def test_a_product_is_surer_than_each_of_its_experts():
    experts = DiagonalGaussian(COMPONENTS, WIDTHS)
    product = product_of_gaussians(experts, torch.ones(4, 3, dtype=torch.bool))
    assert (product.std < WIDTHS.min(1).values).all()


def test_parts_of_a_mixture_of_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3, 2\), \(4, 3, 2\) and \(4, 2\)"):
        GaussianMixture(COMPONENTS, WIDTHS, WEIGHTS[:, :2])
