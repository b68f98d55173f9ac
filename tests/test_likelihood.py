"""The importance-weighted bound, on a linear-Gaussian model whose evidence is known exactly."""

import math

import pytest
import torch
from tiny_models import rng, some_present, tiny_images, tiny_modalities, tiny_vae
from torch.distributions import MultivariateNormal

from shala_lite.distributions import DiagonalGaussian, product_of_gaussians
from shala_lite.experts import MoE, MoPoE, PoE
from shala_lite.likelihood import log_likelihood

NAMES, PIXELS, Z, NOISE = ("a", "b", "c"), 16, 2, 0.6


class LinearGaussian:
    """z ~ N(0, I), x_m ~ N(A_m z, NOISE^2 I), with experts that are the likelihoods of x_m.

    A_m' A_m is diagonal, so the likelihood of z given x_m is a diagonal Gaussian, and the product
    of those of a subset with the prior is its posterior. `off` makes experts wrong and too wide.
    """

    off = 0.0

    def weights(self):
        generator, found = rng(5), []
        for _ in NAMES:
            q, _ = torch.linalg.qr(torch.randn(PIXELS, Z, generator=generator, dtype=torch.float64))
            found.append(q * torch.tensor([1.5, 0.8], dtype=torch.float64))
        return found

    def _features(self, x, present):
        return {name: value.flatten(1) for name, value in x.items()}

    def experts(self, features, present):
        means, stds = [], []
        for index, a in enumerate(self.weights()):
            gain = a.square().sum(0)
            std = (NOISE / gain.sqrt()).expand(len(features), -1)
            means.append(features[:, index] @ a / gain + self.off * std)
            stds.append(std * (1 + self.off))
        return DiagonalGaussian(torch.stack(means, 1), torch.stack(stds, 1))

    def _said(self, x, z, wanted):
        return [wanted]

    def _nats(self, x, z, said):
        (wanted,), found = said, {}
        for index, (name, a) in enumerate(zip(NAMES, self.weights())):
            drawn = z[name] if isinstance(z, dict) else z
            error = (x[name].flatten(1) - drawn @ a.T) / NOISE
            constant = PIXELS * (0.5 * math.log(2 * math.pi) + math.log(NOISE))
            nats = -0.5 * error.square().sum(-1) - constant
            found[name] = nats if wanted is None else torch.where(wanted[..., index], nats, 0)
        return found

    def evidence(self, x, which=NAMES):
        """log p of the modalities in `which`, in closed form."""
        chosen = [index for index, name in enumerate(NAMES) if name in which]
        a = torch.cat([self.weights()[index] for index in chosen])
        covariance = a @ a.T + NOISE**2 * torch.eye(len(a), dtype=torch.float64)
        data = torch.cat([x[NAMES[index]].flatten(1) for index in chosen], 1)
        return MultivariateNormal(torch.zeros(len(a)).double(), covariance).log_prob(data)


def linear(kind, off=0.0, **options):
    """A model of that kind, on the linear-Gaussian data."""
    of = type("Linear" + kind.__name__, (LinearGaussian, kind), {"off": off})
    sizes = dict(latent_dim=Z, feature_dim=PIXELS, hidden=4, widths=(2, 2), depth=1)
    return of(tiny_modalities(NAMES, (1, 4, 4)), **(sizes | options)).eval()


def observed(model, n=400, seed=1000):
    generator = rng(seed)
    z = torch.randn(n, Z, generator=generator, dtype=torch.float64)
    return {
        name: (
            z @ a.T + NOISE * torch.randn(n, PIXELS, generator=generator, dtype=torch.float64)
        ).view(n, 1, 4, 4)
        for name, a in zip(NAMES, model.weights())
    }


def test_the_bound_is_tight_where_the_posterior_is_exact():
    model = linear(PoE)
    x = observed(model)
    evidence = model.evidence(x)
    for samples in (1, 3):
        found = log_likelihood(model, x, samples=samples, generator=rng())
        torch.testing.assert_close(found, evidence)  # draw for draw
    # the ELBO has its divergence in closed form, so only its mean over draws is tight
    elbo = torch.stack([model.elbo(x, generator=rng(seed))["elbo"] for seed in range(1, 31)])
    assert (elbo.mean() - evidence.mean()).abs() < 5 * elbo.std() / math.sqrt(30)


@pytest.mark.parametrize("kind", [PoE, MoE, MoPoE])
def test_the_bound_rises_with_its_samples_and_stays_below_the_evidence(kind):
    model = linear(kind, off=0.7)
    x = observed(model)
    evidence = model.evidence(x)
    many = {name: value.repeat(20, 1, 1, 1) for name, value in x.items()}
    draws = {}
    for samples in (1, 5, 50):
        found = log_likelihood(model, many, samples=samples, generator=rng(samples))
        draws[samples] = found.view(20, -1)
    gaps = [evidence - bound.mean(0) for bound in draws.values()]
    for wider, closer in zip(gaps, [*gaps[1:], torch.zeros_like(evidence)]):
        difference = wider - closer
        assert difference.mean() > 5 * difference.std() / math.sqrt(len(difference))
    # and one sample is the ELBO
    elbo = torch.stack([model.elbo(x, generator=rng(k))["elbo"] for k in range(20)])
    spread = elbo.std() / math.sqrt(20) + draws[1].mean(1).std() / math.sqrt(20)
    assert (elbo.mean() - draws[1].mean()).abs() < 5 * spread


def test_every_bound_of_a_product_is_tight_where_its_experts_are_exact():
    """MVAE's objective is then a sum of evidences: of all, of each alone, of random subsets."""
    model = linear(PoE, subsets=0)
    x = observed(model)
    expected = model.evidence(x) + sum(model.evidence(x, [name]) for name in NAMES)
    found = torch.stack([-model.loss(x, generator=rng(seed))["loss"] for seed in range(20)])
    assert (found.mean() - expected.mean()).abs() < 5 * found.std() / math.sqrt(20)
    whole = linear(PoE, subsets=-1)
    found = torch.stack([-whole.loss(x, generator=rng(seed))["loss"] for seed in range(20)])
    assert (found.mean() - model.evidence(x).mean()).abs() < 5 * found.std() / math.sqrt(20)


def test_the_likelihood_of_a_part_is_that_of_a_model_that_has_only_seen_it():
    model = linear(PoE)
    x = observed(model)
    present = torch.tensor([[True, False, True]]).expand(400, -1)
    found = log_likelihood(model, x, present, samples=1, generator=rng())
    torch.testing.assert_close(found, model.evidence(x, ["a", "c"]))


@pytest.mark.parametrize("samples", [1, 4])
def test_the_bound_of_a_mixture_is_that_of_its_experts_in_turn(samples):
    """1/M sum_m E log 1/K sum_k p(x, z_k) / q(z_k), by many draws of each expert alone."""
    model, count = linear(MoE, off=0.3, importance_samples=samples), 200
    x = observed(model, n=1)
    q = model.posterior(model.features(x))
    by_hand = []
    for index in range(3):
        expert = DiagonalGaussian(q.means[:, index], q.stds[:, index])
        z = expert[torch.zeros(count * samples, dtype=torch.long)].sample(rng(index))
        nats = sum(model.log_likelihoods(x, z[:, None]).values())[:, 0]
        prior = -0.5 * z.square().sum(1) - Z * 0.5 * math.log(2 * math.pi)
        ratio = (nats + prior - q.log_prob(z[:, None])[:, 0]).view(count, samples)
        by_hand.append(ratio.logsumexp(1) - math.log(samples))
    by_hand = torch.stack(by_hand)
    objective = torch.stack([-model.loss(x, generator=rng(k))["loss"] for k in range(count)])
    spread = objective.std() + by_hand.mean(0).std()
    assert (objective.mean() - by_hand.mean()).abs() < 5 * spread / math.sqrt(count)


@pytest.mark.parametrize("variant", ["moe", "mmvaeplus"])
def test_more_importance_samples_train_on_a_closer_bound(variant):
    x, draws = tiny_images(), 100
    low, high = (
        torch.stack([-model.loss(x, generator=rng(k))["loss"].detach() for k in range(draws)])
        for model in (tiny_vae(variant=variant, importance_samples=k) for k in (1, 8))
    )
    assert high.mean() - low.mean() > 5 * (low.std() + high.std()) / math.sqrt(draws)


def test_the_linear_model_is_what_it_says():
    """The product of its experts with the prior is the posterior: p(x, z) / q(z) is constant."""
    model = linear(PoE)
    x = observed(model, 50)
    experts = model.experts(torch.stack([x[n].flatten(1) for n in NAMES], 1), None)
    q = product_of_gaussians(experts, torch.ones(50, 3, dtype=torch.bool), prior=True)
    ratios = []
    for seed in range(3):
        z = q.sample(rng(seed))
        nats = sum(model.log_likelihoods(x, z).values())
        prior = -0.5 * z.square().sum(1) - Z * 0.5 * math.log(2 * math.pi)
        ratios.append(nats + prior - q.log_prob(z))
    torch.testing.assert_close(ratios[0], ratios[1])
    torch.testing.assert_close(ratios[0], model.evidence(x))


@pytest.mark.parametrize("variant", ["concat", "poe", "moe", "mopoe", "mmvaeplus"])
def test_every_model_has_a_likelihood_of_every_item(variant):
    vae, x, present = tiny_vae(variant=variant), tiny_images(), some_present()
    found = log_likelihood(vae, x, present, samples=3, generator=rng())
    assert found.shape == (12,)
    assert found.isfinite().all()
    alone = log_likelihood(vae, x, present, samples=3, generator=rng())
    assert torch.equal(found, alone)


def test_no_sample_at_all_is_refused():
    with pytest.raises(ValueError, match="samples: 0, expected at least 1"):
        log_likelihood(tiny_vae(), tiny_images(), samples=0)
