"""Simple priors, on latents whose distribution is known."""

import pytest
import torch
from tiny_models import rng

from shala_lite.ladder import DensityRatioPrior, GaussianMixturePrior
from shala_lite.two_sample import two_sample_auc


def blobs(n=800, seed=0):
    """A third around (-2, 1) and two thirds around (2, -1), the second one tilted."""
    first = (torch.arange(n) % 3 == 0)[:, None]
    z = torch.randn(n, 2, generator=rng(seed))
    tilted = z @ torch.tensor([[0.5, 0.3], [0.0, 0.4]])
    return torch.where(
        first, torch.tensor([-2.0, 1.0]) + 0.3 * z, torch.tensor([2.0, -1.0]) + tilted
    )


def test_the_mixture_recovers_two_blobs():
    prior = GaussianMixturePrior.fit(blobs(3000), 2, rng())
    order = prior.model.weights_.argsort()
    assert prior.model.weights_[order] == pytest.approx([1 / 3, 2 / 3], abs=0.01)
    assert prior.model.means_[order].flatten() == pytest.approx([-2, 1, 2, -1], abs=0.05)


def test_the_density_of_the_mixture_integrates_to_one_and_is_sklearns():
    prior = GaussianMixturePrior.fit(blobs(), 3, rng())
    side = torch.linspace(-6, 6, 301)
    z = torch.cartesian_prod(side, side)
    found = prior.log_prob(z)
    assert found.exp().sum().item() * 0.04**2 == pytest.approx(1, abs=1e-3)
    assert torch.equal(found, torch.from_numpy(prior.model.score_samples(z.double().numpy())))


def test_samples_of_the_mixture_have_its_moments_and_are_in_no_order():
    data = blobs(3000)
    z = GaussianMixturePrior.fit(data, 2, rng()).sample(20_000, rng(1))
    assert z.shape == (20_000, 2)
    assert z.dtype == torch.float32
    assert torch.allclose(z.mean(0), data.mean(0), atol=0.06)
    assert torch.allclose(torch.cov(z.T), torch.cov(data.T), atol=0.1)
    assert torch.allclose(z[:10_000].mean(0), z[10_000:].mean(0), atol=0.1)


def test_one_component_is_the_gaussian_of_the_data():
    data = blobs(500)
    prior = GaussianMixturePrior.fit(data, 1, rng())
    exact = torch.distributions.MultivariateNormal(data.mean(0), torch.cov(data.T, correction=0))
    assert torch.allclose(prior.log_prob(data).float(), exact.log_prob(data), atol=0.01)


def test_the_number_of_components_is_chosen_on_other_latents():
    best = GaussianMixturePrior.best(blobs(120), blobs(400, seed=1), (1, 2, 40), rng())
    assert best.model.n_components == 2


def test_a_density_ratio_moves_normal_draws_towards_the_data():
    # A ring inside N(0, I): not a Gaussian, and a mixture of few would not do.
    def ring(seed):
        z = torch.randn(1200, 2, generator=rng(seed))
        return z / z.norm(dim=1, keepdim=True) * (1.5 + 0.2 * z[:, :1].tanh())

    prior = DensityRatioPrior.fit(ring(0), rng())
    held_out = ring(1)
    before = two_sample_auc(held_out, torch.randn(1200, 2, generator=rng(2)), generator=rng())
    after = two_sample_auc(held_out, prior.sample(1200, rng(3)), generator=rng())
    assert before > 0.8
    assert after < before - 0.15


def test_a_density_ratio_of_normal_data_changes_little():
    normal = torch.randn(1200, 4, generator=rng())
    z = DensityRatioPrior.fit(normal, rng(1)).sample(1200, rng(2))
    assert abs(two_sample_auc(normal, z, generator=rng()) - 0.5) < 0.1


def test_resampling_follows_a_known_ratio():
    # r(z) = exp(z) turns N(0, 1) into N(1, 1).
    known = DensityRatioPrior(lambda z: z[:, 0], 1, proposals=200)
    z = known.sample(4000, rng())
    assert z.mean().item() == pytest.approx(1, abs=0.06)
    assert z.std().item() == pytest.approx(1, abs=0.06)
    # One proposal has no rival: N(0, 1) stays.
    assert DensityRatioPrior(lambda z: z[:, 0], 1, 1).sample(4000, rng()).mean().abs() < 0.06


def test_priors_follow_the_generator_and_the_global_state_stays(monkeypatch):
    before = torch.get_rng_state()
    data = blobs(200)
    for fit in (
        lambda g: GaussianMixturePrior.fit(data, 2, g),
        lambda g: DensityRatioPrior.fit(data, g),
    ):
        one, again = (fit(rng(1)).sample(30, rng(2)) for _ in range(2))
        assert torch.equal(one, again)
        assert not torch.equal(one, fit(rng(1)).sample(30, rng(3)))
    assert torch.equal(before, torch.get_rng_state())
    monkeypatch.setattr("shala_lite.ladder.CHUNK", 7)
    z = DensityRatioPrior.fit(data, rng(1)).sample(30, rng(2))
    assert z.shape == (30, 2)
    assert len(z.unique(dim=0)) == 30


def test_arguments_out_of_range_are_named():
    for components in (0, 21):
        with pytest.raises(ValueError, match=f"components: {components}, expected 1 to the 20"):
            GaussianMixturePrior.fit(blobs(20), components, rng())
    with pytest.raises(ValueError, match="not finite"):
        GaussianMixturePrior.fit(blobs(20) * torch.nan, 2, rng())
    with pytest.raises(ValueError, match="proposals: 0, expected at least 1"):
        DensityRatioPrior.fit(blobs(20), rng(), proposals=0)
    with pytest.raises(ValueError, match="not finite"):
        DensityRatioPrior.fit(blobs(20) / 0, rng())
