"""The divergence taken apart, where both parts are known in closed form."""

import math

import pytest
import torch
from tiny_models import rng

from shala_lite import metrics, prior_hole
from shala_lite.distributions import DiagonalGaussian, GaussianMixture
from shala_lite.prior_hole import kl_aggregated_prior, log_aggregated

WIDTH, SPREAD, STD = 2, 1.2, 0.8  # of the posteriors' means, and of each posterior


def linear_gaussian(n=3000, seed=0):
    """q(z | x) = N(x, STD^2 I) of x ~ N(0, SPREAD^2 I): q(z) is Gaussian, I is known."""
    mean = SPREAD * torch.randn(n, WIDTH, generator=rng(seed))
    return DiagonalGaussian(mean, torch.full_like(mean, STD))


VARIANCE = SPREAD**2 + STD**2  # of q(z)
INFORMATION = WIDTH / 2 * math.log(VARIANCE / STD**2)
HOLE = WIDTH / 2 * (VARIANCE - 1 - math.log(VARIANCE))


def some_mixture(n=40, k=3, seed=0):
    generator = rng(seed)
    weights = torch.rand(n, k, generator=generator)
    weights[:, 0] *= torch.arange(n) % 2  # some components are not there
    return GaussianMixture(
        3 * torch.randn(n, k, WIDTH, generator=generator),
        0.2 + torch.rand(n, k, WIDTH, generator=generator),
        weights / weights.sum(1, keepdim=True),
    )


@pytest.mark.parametrize("posterior", [linear_gaussian(40), some_mixture()], ids=["one", "many"])
def test_the_density_in_blocks_is_that_of_every_posterior_in_turn(posterior, monkeypatch):
    z = 4 * torch.randn(23, WIDTH, generator=rng(3), dtype=torch.float64)
    each = torch.stack([posterior[[n]].log_prob(z) for n in range(40)])
    monkeypatch.setattr(prior_hole, "BLOCK", 300)
    found = log_aggregated(posterior, z)
    assert torch.allclose(found, each.logsumexp(0) - math.log(40), atol=1e-5)


def test_narrow_posteriors_far_from_zero_lose_no_digits():
    mean = 50 + torch.randn(30, 4, generator=rng(), dtype=torch.float64)
    posterior = DiagonalGaussian(mean, torch.full_like(mean, 1e-3))
    direct = posterior.log_prob(mean[:, None]).logsumexp(1) - math.log(30)
    assert torch.allclose(log_aggregated(posterior, mean), direct, atol=1e-3)


def test_both_parts_match_their_closed_forms():
    posterior = linear_gaussian()
    found = kl_aggregated_prior(posterior, generator=rng(1))
    # A draw's standard deviation is about 1.4 nats for each part, and the items vary too.
    assert found.mutual_information == pytest.approx(INFORMATION, abs=3 * 1.4 / math.sqrt(3000))
    assert found.kl == pytest.approx(HOLE, abs=3 * 1.4 / math.sqrt(3000))
    assert found.mean_kl == pytest.approx(found.mutual_information + found.kl)
    assert found.mean_kl == pytest.approx(posterior.kl().mean().item(), abs=0.1)
    assert not found.saturated


def test_a_learned_prior_that_is_the_aggregated_posterior_leaves_no_hole():
    def log_prior(z):
        return DiagonalGaussian(torch.zeros_like(z), torch.full_like(z, VARIANCE**0.5)).log_prob(z)

    found = kl_aggregated_prior(linear_gaussian(), log_prior, generator=rng(1))
    assert abs(found.kl) < 0.03
    assert found.mutual_information == pytest.approx(INFORMATION, abs=0.08)


def test_two_posteriors_that_are_far_apart_know_one_bit():
    mean = torch.tensor([[-9.0, 0.0], [9.0, 0.0]])
    for posterior in (
        DiagonalGaussian(mean, torch.ones(2, 2)),
        GaussianMixture(mean[:, None], torch.ones(2, 1, 2), torch.ones(2, 1)),
    ):
        found = kl_aggregated_prior(posterior, generator=rng())
        assert found.mutual_information == pytest.approx(math.log(2))
        assert found.log_n == pytest.approx(math.log(2))
        assert found.saturated


def test_posteriors_that_ignore_their_item_know_nothing():
    posterior = DiagonalGaussian(torch.zeros(500, 3), torch.ones(500, 3))
    found = kl_aggregated_prior(posterior, generator=rng())
    assert abs(found.mutual_information) < 1e-6
    assert abs(found.kl) < 1e-6
    assert not found.saturated


def test_the_curve_rises_with_n_and_stays_below_log_n():
    found = kl_aggregated_prior(linear_gaussian(), generator=rng(1), sizes=(1500, 4, 40))
    assert [point[0] for point in found.curve] == [4, 40, 1500]
    information = [point[1] for point in found.curve]
    assert information == sorted(information)
    assert all(point[1] <= math.log(point[0]) for point in found.curve)
    assert found.curve[-1][1:] == (found.mutual_information, found.kl)
    assert found.log_n == math.log(1500)
    usual = kl_aggregated_prior(linear_gaussian(100), generator=rng())
    assert [point[0] for point in usual.curve] == [25, 50, 100]


def narrow(n, seed):
    """Posteriors that know 8 nats: more than log N of a few hundred items."""
    mean = torch.randn(n, 4, generator=rng(seed))
    return DiagonalGaussian(mean, torch.full_like(mean, math.exp(-2)))


def test_where_n_is_too_small_the_information_is_too_low_and_the_hole_too_wide():
    truth = 2 * math.log(1 + math.exp(4))
    found = kl_aggregated_prior(narrow(400, 0), generator=rng())
    assert found.saturated
    assert found.mutual_information <= math.log(400) < truth
    assert found.kl > 4 / 2 * (math.exp(-4) - math.log1p(math.exp(-4)))


def test_the_estimate_depends_on_the_generator_alone():
    one, again, other = (kl_aggregated_prior(narrow(60, 0), generator=rng(s)) for s in (1, 1, 2))
    assert one == again != other


def test_arguments_out_of_range_are_named():
    posterior = linear_gaussian(30)
    for sizes in ((1, 30), (31,), ()):
        with pytest.raises(ValueError, match="expected numbers from 2 to the 30 posteriors"):
            kl_aggregated_prior(posterior, generator=rng(), sizes=sizes)
    with pytest.raises(ValueError, match=r"log_prior gave shape \(30, 2\)"):
        kl_aggregated_prior(posterior, lambda z: z, generator=rng())
    with pytest.raises(ValueError, match="0 finite, the posterior"):
        kl_aggregated_prior(posterior, lambda z: z[:, 0] * torch.nan, generator=rng())
    broken = DiagonalGaussian(posterior.mean * torch.nan, posterior.std)
    with pytest.raises(ValueError, match="posterior 0 finite"):
        kl_aggregated_prior(broken, lambda z: torch.zeros(30), generator=rng())
    with pytest.raises(ValueError, match=r"z has shape \(40, 4\); expected \(B, 2\)"):
        log_aggregated(posterior, torch.zeros(40, 4))


def test_what_is_measured_can_be_recorded():
    assert {"kl_aggregated_prior", "mutual_information"} <= metrics.KEYS.keys()
