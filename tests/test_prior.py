"""Stage 2: subsets, guidance, counted cost, and that it learns a latent which is not Gaussian."""

import math

import pytest
import torch
from tiny_models import (
    FEATURE,
    LATENT,
    rng,
    tiny_features,
    tiny_latents,
    tiny_prior,
)

from shala_lite.distributions import DiagonalGaussian
from shala_lite.latents import LatentDataset
from shala_lite.prior import LatentPrior
from shala_lite.samplers import SAMPLERS
from shala_lite.schedule import clean_and_noise
from shala_lite.training import fit

EVERYTHING = torch.ones(12, 3, dtype=torch.bool)


def some_present(n=12, modalities=3, seed=0):
    return torch.rand(n, modalities, generator=rng(seed)) < 0.5


# Standardisation


def test_standardised_latents_have_mean_zero_and_unit_variance():
    prior, latents = tiny_prior(), tiny_latents(64)
    prior.standardise(latents)
    many = latents.posterior[torch.arange(64).repeat(5000)]
    z = (many.sample(rng()) - prior.latent_mean) / prior.latent_std
    torch.testing.assert_close(z.mean(0), torch.zeros(LATENT), atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(LATENT), atol=0.01, rtol=0)


def test_the_network_sees_standardised_features():
    prior, latents = tiny_prior(), tiny_latents(64)
    prior.standardise(latents)
    seen = {}
    prior.network.register_forward_pre_hook(lambda net, inputs: seen.update(inputs[2]))
    prior.loss(**latents.batch(torch.arange(64)), generator=rng())
    for h in seen.values():
        torch.testing.assert_close(h.mean(0), torch.zeros(FEATURE), atol=1e-5, rtol=0)
        torch.testing.assert_close(h.std(0), torch.ones(FEATURE))


def test_absent_features_do_not_count_in_the_standardisation():
    present = some_present(64)
    latents = tiny_latents(64, present=present)
    spoiled = {
        name: torch.where(present[:, i, None], h, torch.nan)
        for i, (name, h) in enumerate(latents.features.items())
    }
    prior, other = tiny_prior(), tiny_prior()
    prior.standardise(latents)
    other.standardise(LatentDataset(latents.posterior, spoiled, present))
    state = prior.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())
    only = latents.features["b"][present[:, 1]]
    torch.testing.assert_close(prior.get_buffer("feature_mean_b"), only.mean(0))


def test_a_feature_that_never_varies_or_never_occurs_stays_finite():
    prior, latents = tiny_prior(), tiny_latents(64)
    latents.features["a"][:, 2] = 7.0
    latents.present[:, 1] = False
    latents.present[1:, 2] = False  # one item: no deviation to speak of
    prior.standardise(latents)
    loss = prior.loss(**latents.batch(torch.arange(64)), generator=rng())["loss"]
    assert loss.isfinite()
    assert all(value.isfinite().all() for value in prior.state_dict().values())


def test_the_unit_of_the_latent_is_irrelevant():
    """Rescaled and shifted data give rescaled and shifted samples, and the same loss."""
    latents = tiny_latents(64)
    scale, shift = torch.rand(LATENT, generator=rng(5)) * 4 + 0.5, torch.arange(LATENT) - 2.0
    moved = DiagonalGaussian(latents.posterior.mean * scale + shift, latents.posterior.std * scale)
    other_latents = LatentDataset(moved, latents.features, latents.present)
    prior, other = tiny_prior(), tiny_prior()
    prior.standardise(latents)
    other.standardise(other_latents)
    every = torch.arange(64)
    torch.testing.assert_close(
        other.loss(**other_latents.batch(every), generator=rng())["loss"],
        prior.loss(**latents.batch(every), generator=rng())["loss"],
        rtol=1e-4,
        atol=0,
    )
    z, same = (p.sample(12, steps=3, generator=rng()).z for p in (prior, other))
    torch.testing.assert_close(same, z * scale + shift, rtol=1e-3, atol=1e-3)


# The loss


@pytest.mark.parametrize("schedule", ["rectified", "variance_preserving"])
def test_before_training_the_loss_on_standard_normal_data_is_one(schedule):
    """Then c_skip z_t is exact and what it leaves over has variance c_out^2, the loss's unit."""
    prior = tiny_prior(stirred=False, schedule=schedule)
    count = 20_000
    half = torch.full((count, LATENT), 0.5**0.5)
    mean = half * torch.randn(half.shape, generator=rng(1))
    terms = prior.loss(
        DiagonalGaussian(mean, half), {}, EVERYTHING[:1].expand(count, -1), generator=rng()
    )
    assert terms["loss"].item() == pytest.approx(1, abs=5 * math.sqrt(2 / count / LATENT))


@pytest.mark.parametrize("schedule", ["rectified", "variance_preserving"])
def test_the_noise_loss_is_the_error_of_the_noise(schedule):
    """Of e as read from the velocity that the network gives, the network being any."""
    prior = tiny_prior(schedule=schedule, parametrisation="noise")
    latents = tiny_latents(64)
    seen = {}

    def note(z, t, features, present):
        seen.update(z=z, t=t, v=LatentPrior.velocity(prior, z, t, features, present))
        return seen["v"]

    prior.velocity = note
    loss = prior.loss(**latents.batch(torch.arange(64)), generator=rng())["loss"]
    generator = rng()
    z = latents.posterior.sample(generator)
    noise = torch.randn(z.shape, generator=generator)
    found = clean_and_noise(prior.schedule, seen["z"], seen["v"], seen["t"])[1]
    torch.testing.assert_close(loss, (found - noise).square().mean(), rtol=1e-4, atol=0)


def test_training_visits_times_with_the_mean_and_deviation_of_their_logits(monkeypatch):
    prior, latents = tiny_prior(time_mean=-0.5, time_std=1.2, guide_width=4), tiny_latents(64)
    every, seen, velocity = torch.arange(64).repeat(100), [], prior.velocity
    monkeypatch.setattr(
        prior, "velocity", lambda z, t, *rest: seen.append(t) or velocity(z, t, *rest)
    )
    prior.loss(**latents.batch(every), generator=rng())
    (t,) = seen
    assert t.logit().mean().item() == pytest.approx(-0.5, abs=5 * 1.2 / 80)
    assert t.logit().std().item() == pytest.approx(1.2, abs=5 * 1.2 / 113)
    assert (prior.guide.time_mean, prior.guide.time_std) == (-0.5, 1.2)


def test_parametrisations_have_one_network_and_differ_in_the_loss_alone():
    velocity, noise = tiny_prior(), tiny_prior(parametrisation="noise", guide_width=4)
    noise.load_state_dict(velocity.state_dict(), strict=False)
    assert noise.guide.parametrisation == noise.config["parametrisation"] == "noise"
    assert velocity.config["parametrisation"] == "velocity"
    z, same = (prior.sample(12, steps=3, generator=rng()).z for prior in (velocity, noise))
    assert torch.equal(z, same)
    batch = tiny_latents(64).batch(torch.arange(64))
    losses = [prior.loss(**batch, generator=rng())["loss"] for prior in (velocity, noise)]
    assert not torch.isclose(*losses)


def test_the_loss_is_the_mean_of_its_parts():
    prior, latents = tiny_prior(), tiny_latents(64, present=some_present(64))
    seen = {}
    prior.network.register_forward_pre_hook(lambda net, inputs: seen.update(present=inputs[3]))
    terms = prior.loss(**latents.batch(torch.arange(64)), generator=rng())
    share = seen["present"].any(1).float().mean()
    assert 0.2 < share < 0.9
    mixture = share * terms["given"] + (1 - share) * terms["nothing"]
    torch.testing.assert_close(terms["loss"], mixture)


def test_the_loss_ignores_absent_features():
    present = some_present(64)
    prior, latents = tiny_prior(), tiny_latents(64, present=present)
    batch = latents.batch(torch.arange(64))
    expected = prior.loss(**batch, generator=rng())
    batch["features"] = {
        name: torch.where(present[:, i, None], h, torch.nan)
        for i, (name, h) in enumerate(latents.features.items())
    }
    found = prior.loss(**batch, generator=rng())
    found["loss"].backward()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(p.grad is None or p.grad.isfinite().all() for p in prior.parameters())


def test_one_generator_gives_one_loss_with_fresh_noise_for_another():
    prior, latents = tiny_prior(), tiny_latents(64)
    batch = latents.batch(torch.arange(64))
    before = torch.random.get_rng_state()
    first, second, third = (prior.loss(**batch, generator=rng(s))["loss"] for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_prior_and_its_guide_are_trained_apart_on_one_scale():
    prior, latents = tiny_prior(guide_width=4), tiny_latents(64)
    prior.standardise(latents)
    assert torch.equal(prior.guide.latent_std, prior.latent_std)
    assert torch.equal(prior.guide.get_buffer("feature_mean_b"), prior.get_buffer("feature_mean_b"))
    for trained, still in [(prior, prior.guide.network), (prior.guide, prior.network)]:
        prior.zero_grad()
        trained.loss(**latents.batch(torch.arange(64)), generator=rng())["loss"].backward()
        assert all(p.grad is not None for p in trained.network.parameters())
        assert all(p.grad is None for p in still.parameters())


@pytest.mark.parametrize("denoiser", ["transformer", "mlp"])
def test_every_parameter_learns_from_the_loss(denoiser):
    prior, latents = tiny_prior(denoiser=denoiser), tiny_latents(64)
    prior.loss(**latents.batch(torch.arange(64)), generator=rng())["loss"].backward()
    still = [name for name, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


# Sampling


def test_before_training_samples_are_gaussian_with_the_scale_of_the_data():
    """Its velocity is exact for N(0, I), whose flow is the identity: noise, put to scale."""
    prior, latents = tiny_prior(stirred=False), tiny_latents(64)
    prior.standardise(latents)
    noise = torch.randn(50, LATENT, generator=rng(3))
    z = prior.sample(50, steps=64, generator=rng(3)).z
    torch.testing.assert_close(z, noise * prior.latent_std + prior.latent_mean, rtol=0, atol=2e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_one_is_no_guidance_exactly(sampler):
    prior, given = tiny_prior(), tiny_features(12)
    found = prior.sample(12, given, steps=4, sampler=sampler, guidance=1.0, generator=rng())
    generator = rng()
    noise = torch.randn(12, LATENT, generator=generator)
    options = dict(schedule=prior.schedule, generator=generator)
    with torch.no_grad():
        plain = SAMPLERS[sampler](
            lambda z, t: prior.velocity(z, t, given, EVERYTHING), noise, 4, **options
        )
    assert torch.equal(found.z, plain.states[-1])
    assert found.nfe == plain.calls


def test_guidance_is_linear_in_the_velocity():
    """One Euler step is linear in the velocity, hence in the guidance; at 0 it is unconditional."""
    prior, given = tiny_prior(), tiny_features(12)
    z = {
        weight: prior.sample(
            12, given, steps=1, sampler="euler", guidance=weight, generator=rng()
        ).z
        for weight in (0.0, 1.0, 2.5)
    }
    free = prior.sample(12, steps=1, sampler="euler", generator=rng()).z
    torch.testing.assert_close(z[0.0], free)
    torch.testing.assert_close(z[2.5], z[0.0] + 2.5 * (z[1.0] - z[0.0]))
    assert not torch.allclose(z[1.0], z[0.0])


@pytest.mark.parametrize("given", [{}, tiny_features(12)], ids=["nothing", "features"])
def test_guidance_against_the_guide_is_linear_in_the_velocity(given):
    """At 0 the guide alone is left, told the same condition; at 1 it has no say."""
    prior = tiny_prior(denoiser="mlp", guide_width=4)
    options = dict(steps=1, sampler="euler", against="guide")
    z = {
        weight: prior.sample(12, given, **options, guidance=weight, generator=rng()).z
        for weight in (0.0, 1.0, 2.5)
    }
    plain = prior.sample(12, given, steps=1, sampler="euler", generator=rng()).z
    assert torch.equal(z[1.0], plain)
    torch.testing.assert_close(z[2.5], z[0.0] + 2.5 * (z[1.0] - z[0.0]))
    weak = prior.guide.sample(12, given, steps=1, sampler="euler", generator=rng()).z
    torch.testing.assert_close(z[0.0], weak)
    assert not torch.allclose(weak, plain)


def test_a_guide_as_good_as_the_network_changes_nothing():
    prior, given = tiny_prior(), tiny_features(12)
    prior.guide = tiny_prior()
    plain = prior.sample(12, given, steps=3, generator=rng()).z
    guided = prior.sample(12, given, steps=3, guidance=3.0, against="guide", generator=rng()).z
    torch.testing.assert_close(guided, plain)


def test_conditioning_on_nothing_is_unconditional():
    prior, given = tiny_prior(), tiny_features(12)
    free = prior.sample(12, steps=3, generator=rng()).z
    assert torch.equal(prior.sample(12, {}, steps=3, generator=rng()).z, free)
    assert torch.equal(prior.sample(12, given, ~EVERYTHING, steps=3, generator=rng()).z, free)
    guided = prior.sample(12, given, ~EVERYTHING, steps=3, guidance=3.0, generator=rng()).z
    torch.testing.assert_close(guided, free)
    assert not torch.allclose(prior.sample(12, given, steps=3, generator=rng()).z, free)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_absent_features_have_exactly_no_influence_on_samples(guidance):
    prior, given, present = tiny_prior(), tiny_features(12), some_present()
    spoiled = {
        name: torch.where(present[:, i, None], h, torch.nan)
        for i, (name, h) in enumerate(given.items())
    }
    options = dict(steps=3, guidance=guidance)
    expected = prior.sample(12, given, present, **options, generator=rng()).z
    assert torch.equal(prior.sample(12, spoiled, present, **options, generator=rng()).z, expected)


def test_the_order_of_a_dict_is_irrelevant():
    prior, given = tiny_prior(), tiny_features(12)
    turned = {name: given[name] for name in "bca"}
    for guidance in (1.0, 2.0):
        options = dict(steps=3, guidance=guidance)
        expected = prior.sample(12, given, **options, generator=rng()).z
        assert torch.equal(prior.sample(12, turned, **options, generator=rng()).z, expected)


def test_listing_the_modalities_in_another_order_changes_nothing():
    prior, other = tiny_prior(), tiny_prior("cab", seed=7)
    other.load_state_dict(prior.state_dict())
    given, present = tiny_features(12), some_present()
    z = prior.sample(12, given, present, steps=3, guidance=2.0, generator=rng()).z
    same = other.sample(12, given, present[:, [2, 0, 1]], steps=3, guidance=2.0, generator=rng()).z
    torch.testing.assert_close(same, z)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nfe_is_the_number_of_evaluations_that_each_sample_cost(sampler, guidance, steps):
    prior, given, rows = tiny_prior(), tiny_features(12), []
    prior.network.register_forward_hook(lambda net, inputs, out: rows.append(len(out)))
    options = dict(steps=steps, sampler=sampler, guidance=guidance)
    found = prior.sample(12, given, **options, generator=rng())
    assert found.nfe * 12 == sum(rows)
    assert len(rows) == (2 * steps - 1 if sampler == "heun" else steps)
    rows.clear()
    free = prior.sample(12, **options, generator=rng())  # nothing to guide, nothing to pay
    assert free.nfe * 12 == sum(rows) == 12 * len(rows)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_an_evaluation_of_the_guide_counts_in_full(guidance):
    prior, rows = tiny_prior(guide_width=4), []
    for network in (prior.network, prior.guide.network):
        network.register_forward_hook(lambda net, inputs, out: rows.append(len(out)))
    options = dict(steps=3, guidance=guidance, against="guide", generator=rng())
    assert prior.sample(12, **options).nfe * 12 == sum(rows)
    assert len(rows) == (5 if guidance == 1.0 else 10)


def test_a_trajectory_runs_from_noise_to_the_sample_in_the_units_of_the_decoder():
    prior = tiny_prior()
    prior.standardise(tiny_latents(64))
    options = dict(steps=4, generator=rng())
    trajectory, nfe = prior.trajectory(12, tiny_features(12), guidance=2.0, **options)
    sample = prior.sample(12, tiny_features(12), guidance=2.0, steps=4, generator=rng())
    assert len(trajectory.states) == 5
    assert torch.equal(trajectory.states[-1], sample.z)
    assert nfe == sample.nfe == 2 * trajectory.calls
    noise = torch.randn(12, LATENT, generator=rng())
    expected = noise * prior.latent_std + prior.latent_mean
    torch.testing.assert_close(trajectory.states[0], expected)


def test_samples_are_those_of_their_generator_and_the_global_state_is_left_alone():
    prior, before = tiny_prior(), torch.random.get_rng_state()
    first, second, third = (prior.sample(12, steps=2, generator=rng(s)).z for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_mode_and_keeps_no_graph(training):
    prior = tiny_prior().train(training)
    assert not prior.sample(3, steps=2, generator=rng()).z.requires_grad
    assert prior.training is training
    with pytest.raises(ValueError, match="steps: 0"):
        prior.sample(3, steps=0, generator=rng())
    assert prior.training is training


# Density


@pytest.mark.parametrize("schedule", ["rectified", "variance_preserving"])
def test_before_training_the_density_is_the_normal_one_with_the_scale_of_the_data(schedule):
    prior, latents = tiny_prior(stirred=False, schedule=schedule, denoiser="mlp"), tiny_latents(64)
    prior.standardise(latents)
    z = latents.posterior.sample(rng())
    expected = torch.distributions.Normal(prior.latent_mean, prior.latent_std).log_prob(z).sum(1)
    # the velocity is exact: what is left is the error of the ODE's steps, and none is made where
    # the velocity is 0
    tolerance = 1e-5 if schedule == "variance_preserving" else 5e-3
    torch.testing.assert_close(prior.log_prob(z, steps=32), expected, rtol=0, atol=tolerance)


def test_the_density_integrates_to_one():
    prior = tiny_prior(latent_dim=1, denoiser="mlp")
    prior.latent_std.fill_(3.0)
    z = torch.linspace(-40, 40, 401)[:, None]
    total = torch.trapezoid(prior.log_prob(z, steps=64).exp(), z[:, 0])
    assert total.item() == pytest.approx(1, abs=0.005)


def test_the_density_is_item_by_item_and_ignores_absent_features(monkeypatch):
    prior, given, present = tiny_prior(), tiny_features(12), some_present()
    prior.standardise(tiny_latents(64))
    z = 2 + 3 * torch.randn(12, LATENT, generator=rng(4))
    whole = prior.log_prob(z, given, present, steps=2)
    spoiled = {
        name: torch.where(present[:, i, None], h, torch.nan)
        for i, (name, h) in enumerate(given.items())
    }
    assert torch.equal(prior.log_prob(z, spoiled, present, steps=2), whole)
    assert not torch.allclose(prior.log_prob(z, steps=2), whole)
    rows = []
    prior.network.register_forward_hook(lambda net, inputs, out: rows.append(len(out)))
    monkeypatch.setattr("shala_lite.prior.AT_ONCE", 5)
    parts = prior.log_prob(z, given, present, steps=2)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    assert max(rows) == 5


def test_a_density_is_given_in_the_precision_of_what_is_asked():
    prior, z = tiny_prior(), torch.randn(5, LATENT, generator=rng(4))
    found = prior.log_prob(z.double(), steps=2)
    assert found.dtype == torch.float64
    assert torch.equal(found.float(), prior.log_prob(z, steps=2))


@pytest.mark.parametrize("training", [True, False])
def test_the_density_leaves_the_mode_and_keeps_no_graph(training):
    prior = tiny_prior().train(training)
    assert not prior.log_prob(torch.zeros(3, LATENT), steps=1).requires_grad
    assert all(p.grad is None for p in prior.parameters())
    with pytest.raises(ValueError, match="steps: 0"):
        prior.log_prob(torch.zeros(3, LATENT), steps=0)
    assert prior.training is training


# Learning


def clusters(n=512):
    """Two narrow clusters, and a feature of modality `a` that tells which."""
    side = torch.arange(n) % 2 * 2.0 - 1
    direction = torch.tensor([1.0, -1.0])
    posterior = DiagonalGaussian(3 + 5 * side[:, None] * direction, torch.full((n, 2), 1.0))
    features = {"a": side[:, None] + torch.zeros(n, 1)}
    return LatentDataset(posterior, features, torch.ones(n, 1, dtype=torch.bool)), side


@pytest.mark.parametrize("denoiser", ["transformer", "mlp"])
def test_it_learns_two_clusters_and_which_one_is_meant(denoiser):
    latents, side = clusters()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = LatentPrior(
            "a",
            latent_dim=2,
            feature_dim=1,
            denoiser=denoiser,
            width=32,
            depth=2,
            tokens=1,
            heads=2,
            none=0.5,
            one=0.5,
        )
    prior.standardise(latents)

    def distance(z):
        """To the nearest centre; the clusters have standard deviation 1."""
        centres = latents.posterior.mean[:2]
        return torch.cdist(z, centres).amin(1).mean().item()

    before = distance(prior.sample(512, steps=16, generator=rng()).z)
    history = fit(
        prior,
        latents,
        steps=200,
        batch_size=512,
        learning_rate=5e-3,
        precision="32-true",
        accelerator="cpu",
        progress=False,
    )
    z = prior.sample(512, steps=16, generator=rng()).z
    shares = (z[:, 0] > 3).float().mean().item()
    floor = math.sqrt(math.pi / 2)  # mean distance of the clusters' own items from their centre
    assert distance(z) < 1.5 * floor < before / 3
    assert 0.35 < shares < 0.65
    given, nothing = (sum(history.terms[key][-20:]) / 20 for key in ("given", "nothing"))
    assert given < nothing < 0.9

    told = prior.sample(512, latents.features, steps=16, generator=rng()).z
    right = ((told[:, 0] > 3) == (side > 0)).float().mean().item()
    assert right > 0.97


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosine"}, r"schedule: 'cosine', expected one of \['rectified'"),
        ({"none": -0.1, "one": 0.4}, "none, one: -0.1, 0.4"),
        ({"none": 0.7, "one": 0.4}, "none, one: 0.7, 0.4"),
        ({"tokens": 5}, "tokens: 5"),
        ({"denoiser": "unet"}, r"denoiser: 'unet', expected one of \['mlp', 'transformer'\]"),
        ({"time_std": 0.0}, "time_std: 0.0, expected a positive number"),
        (
            {"parametrisation": "score"},
            r"parametrisation: 'score', expected one of \['velocity', 'noise'\]",
        ),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_prior(**options)


def test_samples_that_cannot_be_drawn_are_refused_by_name():
    prior, given = tiny_prior(), tiny_features(12)
    with pytest.raises(ValueError, match=r"sampler: 'heum', expected one of \['ancestral', 'dpm"):
        prior.sample(12, sampler="heum")
    with pytest.raises(
        ValueError, match=r"against: 'weak', expected one of \['nothing', 'guide'\]"
    ):
        prior.sample(12, against="weak")
    with pytest.raises(ValueError, match="against: 'guide' of a prior with guide_width 0"):
        prior.sample(12, against="guide", guidance=2.0)
    with pytest.raises(KeyError, match=r"given: unknown \['d'\].*'a', 'b', 'c'"):
        prior.sample(12, {"d": given["a"]})
    with pytest.raises(ValueError, match=r"given: shapes \{'b': \(11, 5\)\}, .* \(12, 5\)"):
        prior.sample(12, given | {"b": given["b"][:11]})
    with pytest.raises(ValueError, match=r"present: shape \(12, 2\), expected \(12, 3\)"):
        prior.sample(12, given, EVERYTHING[:, :2])
    for shape in [(12, LATENT + 1), (LATENT,)]:
        with pytest.raises(ValueError, match=rf"z: shape .*{shape[-1]},?\), expected \(n, 6\)"):
            prior.log_prob(torch.zeros(shape))
