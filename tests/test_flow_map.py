"""Few steps: the student starts as its teacher, and learns the average of its velocity."""

import pytest
import torch
from tiny_models import LATENT, rng, tiny_features, tiny_latents, tiny_prior

from shala_lite.distributions import DiagonalGaussian
from shala_lite.flow_map import FlowMap
from shala_lite.latents import LatentDataset
from shala_lite.prior import LatentPrior
from shala_lite.schedule import SCHEDULES
from shala_lite.training import fit

EVERYTHING = torch.ones(12, 3, dtype=torch.bool)
ALL = torch.arange(64)


def some_present(n=12, seed=0):
    return torch.rand(n, 3, generator=rng(seed)) < 0.5


def spoil(features, present):
    """NaN in place of every feature that is not present."""
    return {
        name: torch.where(present[:, i, None], h, torch.nan)
        for i, (name, h) in enumerate(features.items())
    }


def make(teacher, **options):
    """A new flow map; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FlowMap(teacher, **options).eval()


def tiny_flow_map(guidance=1.0, trained=True, whole=0.25, **options):
    """On a stirred teacher, on the scale of the tiny latents; its span matters if `trained`."""
    prior = tiny_prior(**options)
    prior.standardise(tiny_latents())
    flow_map = make(prior, guidance=guidance, whole=whole)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if trained:
            with torch.no_grad():
                flow_map.span[-1].weight.normal_()
    return flow_map


def inputs(n=12, latent=LATENT, seed=0):
    """z, t and a shorter r."""
    generator = rng(seed)
    z, t = torch.randn(n, latent, generator=generator), torch.rand(n, generator=generator)
    return z, t, t * torch.rand(n, generator=generator)


# Before training


@pytest.mark.parametrize("denoiser", ["transformer", "mlp"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_before_training_it_is_the_teachers_velocity_at_every_span(denoiser, schedule):
    flow_map = tiny_flow_map(trained=False, denoiser=denoiser, schedule=schedule)
    (z, t, r), features, present = inputs(), tiny_features(), some_present()
    expected = flow_map.teacher.velocity(z, t, features, present)
    for end in (r, t, torch.zeros_like(t)):
        assert torch.equal(flow_map.velocity(z, t, end, features, present), expected)


def test_a_teacher_is_copied_and_stays_as_it_is():
    prior = tiny_prior(guide_width=4)
    flow_map = FlowMap(prior)
    assert prior.guide is not None
    assert flow_map.student.guide is flow_map.teacher.guide is None
    before = {key: value.clone() for key, value in prior.state_dict().items()}
    flow_map.loss(**tiny_latents().batch(ALL), generator=rng())["loss"].backward()
    with torch.no_grad():
        for parameter in flow_map.student.parameters():
            parameter += 1
    assert all(torch.equal(value, before[key]) for key, value in prior.state_dict().items())
    kept = flow_map.teacher.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in kept.items())
    assert all(p.grad is None and not p.requires_grad for p in flow_map.teacher.parameters())
    assert all(p.requires_grad for p in prior.parameters())


# The target and the loss, on a Gaussian whose flow is known in closed form


class GaussianFlow:
    """z ~ N(MU, diag(VALUES)): its velocity, and what that is on average over [r, t].

    C_t = alpha^2 S + sigma^2 I is diagonal, and the flow takes z_t to
    z_r = alpha_r mu + sqrt(C_r / C_t) (z_t - alpha_t mu): compare tests/test_samplers.py.
    """

    MU = torch.tensor([1.0, -2.0, 0.5])
    VALUES = torch.tensor([0.2, 1.3, 4.0])

    def __init__(self, schedule):
        self.schedule = SCHEDULES[schedule]()

    def moments(self, t):
        (alpha, alpha_dot), (sigma, sigma_dot) = (
            part(t[:, None]) for part in (self.schedule.signal, self.schedule.noise)
        )
        spread = alpha**2 * self.VALUES + sigma**2
        gain = alpha * alpha_dot * self.VALUES + sigma * sigma_dot
        return alpha * self.MU, alpha_dot * self.MU, spread, gain

    def velocity(self, z, t, features, present, hint=None):
        mean, mean_dot, spread, gain = self.moments(t)
        return mean_dot + gain / spread * (z - mean)

    def average(self, z, t, r, features, present):
        (mean, _, spread, _), (mean_r, _, spread_r, _) = self.moments(t), self.moments(r)
        end = mean_r + (spread_r / spread).sqrt() * (z - mean)
        return (z - end) / (t - r)[:, None]


def gaussian_flow_map(schedule, steps, whole=0.25):
    """A flow map whose teacher is exact."""
    prior = tiny_prior(stirred=False, latent_dim=3, tokens=1, schedule=schedule)
    flow_map = make(prior, teacher_steps=steps, whole=whole)
    exact = GaussianFlow(schedule)
    flow_map.teacher.velocity = exact.velocity
    return flow_map, exact


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_target_is_the_average_velocity_up_to_the_order_of_heun(schedule):
    z, t, r = inputs(256, 3)
    t, r = (1 + t) / 2, r / 2  # spans so long that Heun's error is above that of rounding
    errors = []
    for steps in (16, 32, 64):
        flow_map, exact = gaussian_flow_map(schedule, steps)
        found = flow_map.target(z, t, r, {}, EVERYTHING)
        errors.append((found - exact.average(z, t, r, {}, EVERYTHING)).norm().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("whole", [0.0, 0.5, 1.0])
def test_the_exact_average_velocity_has_no_loss(schedule, whole):
    """What is left is Heun's error; the student before training has far more."""
    flow_map, exact = gaussian_flow_map(schedule, steps=64, whole=whole)
    latents = DiagonalGaussian(exact.MU.expand(500, -1), exact.VALUES.sqrt().expand(500, -1))
    batch = dict(latents=latents, features={}, present=torch.ones(500, 3, dtype=torch.bool))
    before = flow_map.loss(**batch, generator=rng())
    flow_map.velocity = exact.average
    after = flow_map.loss(**batch, generator=rng())
    assert after["loss"] < 1e-4 < 0.1 < before["loss"]
    assert (before["whole"] == 0) == (whole == 0)


@pytest.mark.parametrize("whole", [0.0, 0.3, 1.0])
def test_spans_run_down_within_the_unit_interval_and_the_whole_ones_all_the_way(whole):
    flow_map, seen = tiny_flow_map(whole=whole), []
    flow_map.target = lambda z, t, r, features, present: seen.append((t, r)) or z
    latents = tiny_latents(4000)
    flow_map.loss(**latents.batch(torch.arange(4000)), generator=rng())
    t, r = seen[0]
    assert (r >= 0).all()
    assert (t <= 1).all()
    assert (t - r).min() > 0.9e-3
    share = ((t == 1) & (r == 0)).float().mean().item()
    assert share == pytest.approx(whole, abs=0.03)


def test_the_loss_ignores_absent_features_and_noise_is_the_generators():
    present, before = some_present(64), torch.random.get_rng_state()
    flow_map, latents = tiny_flow_map(guidance=2.0), tiny_latents(present=present)
    batch = latents.batch(ALL)
    expected = flow_map.loss(**batch, generator=rng())["loss"]
    batch["features"] = spoil(batch["features"], present)
    found = flow_map.loss(**batch, generator=rng())["loss"]
    assert torch.equal(found, expected)
    found.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in flow_map.parameters())
    assert flow_map.loss(**batch, generator=rng(1))["loss"] != expected
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("denoiser", ["transformer", "mlp"])
def test_every_parameter_of_the_student_learns(denoiser, half):
    """Under bfloat16 too, in which a GPU trains."""
    flow_map = tiny_flow_map(denoiser=denoiser)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = flow_map.loss(**tiny_latents().batch(ALL), generator=rng())["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    still = [n for n, p in flow_map.named_parameters() if p.requires_grad and not p.grad.any()]
    assert not still


# Guidance


def test_guidance_of_the_teacher_is_that_of_the_prior_and_only_where_something_is_given():
    (z, t, _), features = inputs(), tiny_features()
    present = EVERYTHING & (torch.arange(12)[:, None] >= 6)  # half of the items have nothing
    plain, strong = tiny_flow_map(), tiny_flow_map(guidance=3.0)
    v = plain.teacher_velocity(z, t, features, present)
    assert torch.equal(v, plain.teacher.velocity(z, t, features, present))
    free = plain.teacher.velocity(z, t, {}, ~EVERYTHING)
    guided = strong.teacher_velocity(z, t, features, present)
    torch.testing.assert_close(guided, free + 3 * (v - free))
    torch.testing.assert_close(guided[:6], v[:6])
    assert not torch.allclose(guided[6:], v[6:])


def test_guidance_one_is_none():
    batch = tiny_latents().batch(ALL)
    none, nearly = (tiny_flow_map(guidance=g).loss(**batch, generator=rng()) for g in (1, 1 + 1e-6))
    torch.testing.assert_close(none["loss"], nearly["loss"], rtol=1e-4, atol=0)
    strong = tiny_flow_map(guidance=3.0).loss(**batch, generator=rng())
    assert strong["loss"] != none["loss"]


# Sampling


@pytest.mark.parametrize("steps", [1, 3])
def test_before_training_samples_are_the_teachers_euler_samples_from_the_same_noise(steps):
    flow_map, given = tiny_flow_map(trained=False), tiny_features()
    for features, present in [(None, None), (given, None), (given, some_present())]:
        options = dict(steps=steps, generator=rng(3))
        found = flow_map.sample(12, features, present, **options)
        options = dict(steps=steps, generator=rng(3), sampler="euler")
        expected = flow_map.teacher.sample(12, features, present, **options)
        torch.testing.assert_close(found.z, expected.z)
        assert found.nfe == expected.nfe == steps


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_nfe_is_the_number_of_evaluations_that_each_sample_cost(steps, guidance):
    flow_map, rows = tiny_flow_map(guidance=guidance), []
    for prior in (flow_map.student, flow_map.teacher):
        prior.network.register_forward_hook(lambda net, inputs, out: rows.append(len(out)))
    found = flow_map.sample(12, tiny_features(), steps=steps, generator=rng())
    assert found.nfe == steps
    assert rows == [12] * steps
    assert not found.z.requires_grad


def test_a_step_jumps_to_where_the_next_one_starts():
    flow_map, seen = tiny_flow_map(), []
    flow_map.velocity = lambda z, t, r, features, present: seen.append((t[0], r[0])) or 0 * z
    flow_map.sample(12, steps=4, generator=rng())
    expected = torch.tensor([[1, 0.75], [0.75, 0.5], [0.5, 0.25], [0.25, 0]])
    torch.testing.assert_close(torch.tensor(seen), expected)


def test_absent_features_have_exactly_no_influence_on_samples():
    flow_map, given, present = tiny_flow_map(), tiny_features(), some_present()
    expected = flow_map.sample(12, given, present, steps=2, generator=rng()).z
    spoiled = spoil(given, present)
    assert torch.equal(flow_map.sample(12, spoiled, present, steps=2, generator=rng()).z, expected)
    free = flow_map.sample(12, steps=2, generator=rng()).z
    nothing = flow_map.sample(12, given, ~EVERYTHING, steps=2, generator=rng()).z
    assert torch.equal(nothing, free)
    assert not torch.allclose(expected, free)


# Learning


def clusters(n=512):
    """Two clusters, and a feature of modality `a` that tells which."""
    side = torch.arange(n)[:, None] % 2 * 2.0 - 1
    posterior = DiagonalGaussian(side * torch.tensor([5.0, -5.0]), torch.full((n, 2), 1.0))
    return LatentDataset(posterior, {"a": side}, torch.ones(n, 1, dtype=torch.bool))


def train(module, latents, steps, rate):
    options = dict(precision="32-true", accelerator="cpu", progress=False, ema=0.98)
    return fit(module, latents, steps=steps, batch_size=128, learning_rate=rate, **options)


@pytest.fixture(scope="module")
def teacher():
    """A small prior that knows the two clusters."""
    sizes = dict(latent_dim=2, feature_dim=1, denoiser="mlp", width=32, depth=2, none=0.5, one=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = LatentPrior("a", **sizes)
    prior.standardise(clusters())
    train(prior, clusters(), 150, 5e-3)
    return prior


def test_a_trained_student_follows_its_guided_teacher_in_few_steps_and_in_many(teacher):
    latents, guidance = clusters(256), 2.0
    flow_map = make(teacher, guidance=guidance, teacher_steps=3)
    sources = {"free": None, "given": latents.features}
    exact = {
        kind: teacher.sample(256, given, steps=32, guidance=guidance, generator=rng()).z
        for kind, given in sources.items()
    }

    def errors(kind, steps):
        """Distance of each item from where the teacher takes it, in deviations of the data."""
        z = flow_map.sample(256, sources[kind], steps=steps, generator=rng()).z
        return ((z - exact[kind]) / teacher.latent_std).square().mean(1).sqrt()

    before = {kind: errors(kind, 1).mean() for kind in sources}
    history = train(flow_map, latents, 80, 3e-3)
    assert sum(history.terms["loss"][-10:]) / 10 < history.terms["loss"][0] / 3
    for kind in sources:
        assert errors(kind, 1).mean() < before[kind] / 2
        # not the mean: noise between the clusters may end in the other one
        assert errors(kind, 16).median() < 0.15


# Errors


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match="teacher_steps: 0, expected at least 1"):
        FlowMap(tiny_prior(), teacher_steps=0)
    with pytest.raises(ValueError, match=r"whole: 1\.5, expected a share from 0 to 1"):
        FlowMap(tiny_prior(), whole=1.5)


def test_samples_that_cannot_be_drawn_are_refused_by_name():
    flow_map, given = tiny_flow_map(), tiny_features()
    with pytest.raises(ValueError, match="steps: 0, expected at least 1"):
        flow_map.sample(12, steps=0)
    with pytest.raises(KeyError, match=r"given: unknown \['d'\].*'a', 'b', 'c'"):
        flow_map.sample(12, {"d": given["a"]})
