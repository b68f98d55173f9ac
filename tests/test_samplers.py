"""Samplers against a Gaussian, whose probability flow is known in closed form.

For z ~ N(mu, S) the noisy latent has covariance C_t = alpha^2 S + sigma^2 I, the velocity is

    v(z_t, t) = alpha' mu + (alpha' alpha S + sigma' sigma I) C_t^-1 (z_t - alpha mu)

and, as all C_t share eigenvectors, the flow takes noise e to mu + S^(1/2) e.

The velocity is affine in z_t, so every sampler is an affine map of all that is drawn. Its law is
that map's: a mean and a covariance without a single random number.
"""

import math

import pytest
import torch
from tiny_models import rng

from shala_lite import samplers
from shala_lite.samplers import SAMPLERS, ancestral
from shala_lite.schedule import SCHEDULES

MU = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
BASIS = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=rng(1)))[0]
VALUES = torch.tensor([0.2, 1.3, 4.0], dtype=torch.float64)
COVARIANCE = BASIS @ VALUES.diag() @ BASIS.T
ROOT = BASIS @ VALUES.sqrt().diag() @ BASIS.T
NOISE = torch.randn(64, 3, dtype=torch.float64, generator=rng(2))
EXACT = MU + NOISE @ ROOT
STEPS = (8, 16, 32, 64, 128)
CALLS = {
    "euler": lambda n: n,
    "heun": lambda n: 2 * n - 1,
    "ancestral": lambda n: n,
    "dpmpp_2m": lambda n: n,
}
RECTIFIED = SCHEDULES["rectified"]()

every = pytest.mark.parametrize("sampler", SAMPLERS)
follows_the_ode = pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
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


def run(sampler, velocity, steps, noise=NOISE):
    return SAMPLERS[sampler](
        velocity, noise, steps, schedule=getattr(velocity, "schedule", RECTIFIED), generator=rng(5)
    )


def errors(sampler, schedule):
    found = [run(sampler, GaussianVelocity(schedule), n).states[-1] for n in STEPS]
    return torch.stack([(z - EXACT).square().mean().sqrt() for z in found])


def order(error, last=3):
    """Minus the slope of the last errors over the number of steps, both logarithmic."""
    x, y = torch.tensor(STEPS[-last:]).double().log(), error[-last:].log()
    return -(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()


def law(sampler, schedule, steps, monkeypatch):
    """Mean (3,) and covariance (3, 3) of a sampler's result, by probing its affine map.

    Row 0 draws zeros; each other row has a single 1 among the numbers that it draws, in all steps.
    """
    rows = 1 + 3 * (steps + 1)
    draws = torch.eye(rows, dtype=torch.float64)[:, 1:].unflatten(1, (steps + 1, 3))
    fresh = iter(draws.unbind(1))
    monkeypatch.setattr(samplers, "standard_normal_like", lambda *_: next(fresh))
    result = run(sampler, GaussianVelocity(schedule), steps, noise=next(fresh)).states[-1]
    mean, slopes = result[0], result[1:] - result[0]
    return mean, slopes.T @ slopes


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
@pytest.mark.parametrize(("sampler", "claimed"), [("euler", 1), ("heun", 2)])
def test_samplers_converge_to_the_exact_map_at_their_order(sampler, claimed, schedule):
    error = errors(sampler, schedule)
    assert order(error) == pytest.approx(claimed, abs=0.15)
    assert error[-1] < (0.05 if claimed == 1 else 1e-3)


@schedules
def test_dpmpp_converges_to_the_exact_map_at_order_two_up_to_a_logarithm(schedule):
    """dt^2 log(1 / dt): equal steps in t are not small steps of the log-SNR near both ends."""
    error = errors("dpmpp_2m", schedule)
    assert order(error / torch.tensor(STEPS).double().log()) == pytest.approx(2, abs=0.1)
    assert error[-1] < 2e-3


@schedules
def test_the_law_of_ancestral_samples_converges_at_order_one(schedule, monkeypatch):
    found = [law("ancestral", schedule, steps, monkeypatch) for steps in STEPS]
    of_mean = torch.stack([(mean - MU).norm() for mean, _ in found])
    of_covariance = torch.stack([(spread - COVARIANCE).norm() for _, spread in found])
    assert order(of_covariance) == pytest.approx(1, abs=0.15)
    assert of_covariance[-1] < 0.05 * COVARIANCE.norm()
    # The posterior of a Gaussian has the mean of the data at every step.
    assert of_mean.max() < 1e-12


@schedules
def test_the_law_of_the_other_samplers_is_that_of_their_map(schedule, monkeypatch):
    """So that the probing above is known to be right: there the map is known too."""
    mean, spread = law("heun", schedule, 128, monkeypatch)
    torch.testing.assert_close(mean, MU, rtol=0, atol=1e-3)
    torch.testing.assert_close(spread, COVARIANCE, rtol=0, atol=2e-3)


@schedules
def test_an_ancestral_step_is_the_posterior_of_the_forward_process(schedule, monkeypatch):
    """By Bayes: q(z_s | z_t, x) from q(z_s | x) and q(z_t | z_s), as products of Gaussians."""
    scale = SCHEDULES[schedule]()
    times = torch.tensor([0.7, 0.4], dtype=torch.float64)
    (a_t, a_s), (s_t, s_s) = scale.signal(times)[0], scale.noise(times)[0]
    x, z = torch.tensor([[1.5]], dtype=torch.float64), torch.tensor([[-0.3]], dtype=torch.float64)
    kept = a_t / a_s  # q(z_t | z_s) = N(kept z_s, s_t^2 - kept^2 s_s^2)
    precision = 1 / s_s**2 + kept**2 / (s_t**2 - kept**2 * s_s**2)
    mean = (a_s * x / s_s**2 + kept * z / (s_t**2 - kept**2 * s_s**2)) / precision

    def velocity(z, t):  # of a model that is sure of x
        noise = (z - scale.signal(t)[0][:, None] * x) / scale.noise(t)[0][:, None]
        return scale.signal(t)[1][:, None] * x + scale.noise(t)[1][:, None] * noise

    monkeypatch.setattr(samplers, "time_grid", lambda steps, like: list(times[:, None]))
    for drawn in (0.0, 1.0):
        fresh = torch.full_like(z, drawn)
        monkeypatch.setattr(samplers, "standard_normal_like", lambda *_, fresh=fresh: fresh)
        found = ancestral(velocity, z, 1, schedule=scale).states[-1]
        torch.testing.assert_close(found, mean + drawn * precision.rsqrt())


@schedules
def test_second_order_is_better_than_euler_at_equal_cost(schedule):
    cheap = run("heun", GaussianVelocity(schedule), 16)
    for better, steps in [("heun", 16), ("dpmpp_2m", cheap.calls)]:
        good = run(better, GaussianVelocity(schedule), steps)
        same = run("euler", GaussianVelocity(schedule), good.calls)
        assert (good.states[-1] - EXACT).norm() < (same.states[-1] - EXACT).norm() / 2


@schedules
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@every
def test_calls_counted_are_calls_made_and_all_is_finite(sampler, steps, schedule):
    velocity = GaussianVelocity(schedule)
    found = run(sampler, velocity, steps)
    assert found.calls == len(velocity.times) == CALLS[sampler](steps)
    assert all(z.isfinite().all() for z in found.states)
    # alpha_1 of the quarter circle is below 0 in single precision
    single = SAMPLERS[sampler](
        lambda z, t: -z, NOISE.float(), steps, schedule=SCHEDULES[schedule](), generator=rng()
    )
    assert all(z.isfinite().all() for z in single.states)


def test_only_ancestral_draws_and_from_its_generator_alone():
    before = torch.random.get_rng_state()
    for sampler in SAMPLERS.values():
        generator, velocity = rng(5), GaussianVelocity("rectified")
        first, second, third = (
            sampler(velocity, NOISE, 3, schedule=RECTIFIED, generator=g).states[-1]
            for g in (generator, rng(5), rng(6))
        )
        assert torch.equal(first, second)
        drawn = not torch.equal(generator.get_state(), rng(5).get_state())
        assert drawn == (sampler is ancestral) == (not torch.equal(first, third))
    assert torch.equal(torch.random.get_rng_state(), before)


@every
def test_times_fall_from_noise_and_never_reach_data(sampler):
    """At t = 0 there is nothing left to denoise, and networks are not trained there."""
    velocity = GaussianVelocity("rectified")
    run(sampler, velocity, 6)
    assert velocity.times[0] == 1
    assert velocity.times == sorted(velocity.times, reverse=True)
    assert min(velocity.times) > 0


@every
def test_the_trajectory_starts_at_the_noise_and_keeps_every_state(sampler):
    before = NOISE.clone()
    states = run(sampler, GaussianVelocity("rectified"), 5).states
    assert len(states) == 6
    assert torch.equal(states[0], before)
    assert torch.equal(NOISE, before)
    if sampler != "ancestral":  # whose samples are others than those of the flow
        distances = [(z - EXACT).norm() for z in states]
        assert distances == sorted(distances, reverse=True)


@every
def test_a_single_step_is_an_euler_step_on_straight_lines(sampler):
    velocity = GaussianVelocity("rectified")
    one = run(sampler, velocity, 1).states[-1]
    torch.testing.assert_close(one, NOISE - velocity(NOISE, torch.ones(64, dtype=NOISE.dtype)))


@pytest.mark.parametrize("sampler", ["ancestral", "dpmpp_2m"])
def test_a_single_step_is_the_mean_of_the_data_where_the_data_are_predicted(sampler):
    one = run(sampler, GaussianVelocity("variance_preserving"), 1).states[-1]
    torch.testing.assert_close(one, MU.expand_as(one))


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_single_step_is_an_euler_step_where_the_velocity_is_followed(sampler):
    velocity = GaussianVelocity("variance_preserving")
    one = run(sampler, velocity, 1).states[-1]
    torch.testing.assert_close(one, NOISE - velocity(NOISE, torch.ones(64, dtype=NOISE.dtype)))


@follows_the_ode
def test_a_constant_velocity_is_followed_exactly(sampler):
    states = run(sampler, lambda z, t: MU.expand_as(z), 7).states
    torch.testing.assert_close(states[-1], NOISE - MU)


def test_heun_follows_a_velocity_linear_in_time_up_to_its_last_step():
    """The trapezoid rule is exact there; only the Euler step of length 1/n leaves an error."""
    states = run("heun", lambda z, t: t[:, None].expand_as(z), 4).states
    torch.testing.assert_close(states[3], NOISE - (1 - 0.25**2) / 2)
    torch.testing.assert_close(states[4], states[3] - 0.25**2)


@every
@pytest.mark.parametrize("steps", [0, -3])
def test_no_step_at_all_is_refused(sampler, steps):
    with pytest.raises(ValueError, match=f"steps: {steps}, expected at least 1"):
        run(sampler, GaussianVelocity("rectified"), steps)
