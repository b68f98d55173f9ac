"""The samplers against an independent implementation, the schedulers of diffusers.

diffusers works in single precision, and so the tolerance is 1e-5 of numbers of order one. Its grid
of sigma ends a little off pure noise and pure data, so it is given ours. Straight lines alone: its
quarter circle has no pure noise.
"""

import pytest
import torch
from test_samplers import NOISE, GaussianVelocity, run
from tiny_models import rng

from shala_lite import samplers

# NumPy 2 warns of how diffusers makes an array of a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FLOW = dict(use_flow_sigmas=True, prediction_type="flow_prediction", final_sigmas_type="zero")
# The first-order solver of its stochastic equation is the ancestral step.
STOCHASTIC = dict(algorithm_type="sde-dpmsolver++", solver_order=1)
PEERS = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", FLOW),
    "ancestral": ("DPMSolverMultistepScheduler", FLOW | STOCHASTIC),
}


@pytest.fixture(scope="module")
def diffusers():
    import diffusers  # takes seconds, and these tests alone need it

    return diffusers


class SingleVelocity(GaussianVelocity):
    """The same in single precision."""

    def __call__(self, z, t):
        return super().__call__(z.double(), t.double()).float()


def solve(scheduler, velocity, noise, steps, fresh):
    """What a scheduler makes of `noise` in equal steps, from t = 1 to 0."""
    scheduler.set_timesteps(steps)
    grid = torch.linspace(1, 0, steps + 1)
    if len(scheduler.timesteps) > steps:  # Heun's: the ends of a step are a step each
        grid = torch.cat([grid[:1], grid[1:-1].repeat_interleave(2), grid[-1:]])
    scheduler.sigmas = grid
    scheduler.set_begin_index(0)
    z = noise
    for index, time in enumerate(scheduler.timesteps):
        options = {"variance_noise": fresh[index]} if fresh is not None else {}
        z = scheduler.step(velocity(z, grid[index].expand(len(z))), time, z, **options).prev_sample
    return z


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 20])
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_samplers_agree_with_those_of_diffusers(sampler, steps, diffusers, monkeypatch):
    noise, fresh = NOISE.float(), None
    if sampler == "ancestral":  # both are given one noise
        fresh = torch.randn(steps, *noise.shape, generator=rng(7))
        drawn = iter(fresh)
        monkeypatch.setattr(samplers, "standard_normal_like", lambda *_: next(drawn))
    ours, theirs = SingleVelocity("rectified"), SingleVelocity("rectified")
    found = run(sampler, ours, steps, noise)
    name, options = PEERS[sampler]
    expected = solve(getattr(diffusers, name)(**options), theirs, noise, steps, fresh)
    torch.testing.assert_close(found.states[-1], expected, rtol=0, atol=1e-5)
    assert len(theirs.times) == len(ours.times) == found.calls
