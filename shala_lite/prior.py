r"""Stage 2: a diffusion prior on the shared latent, given the features of any subset.

    loss = E_{z ~ q(z), e, t} || v_theta(z_t, t, {h_m : m in S}) - v_t ||^2 / c_out(t)^2

S is drawn for every item: nothing, one modality (the paper's rule), or a random subset. The error
is in the unit of the residual: with v_theta = c_skip z_t + c_out F it is || F - F* ||^2, F* the
network's target. To predict the noise e in place of v_t is the same network under another weight:
`schedule.clean_and_noise` of v_theta gives

    e_theta = (alpha v_theta - alpha' z_t) / d = (sigma / s) z_t + (alpha / sqrt(s)) F,   d > 0

as d = alpha sigma' - alpha' sigma = c_out sqrt(s), hence || e_theta - e ||^2 = (alpha^2 / s)
|| F - F* ||^2: the noise loss (Ho et al. 2020) is silent about t = 1, where z_t is all noise. Both
sample through v_theta, which has no singularity.

Source: ShaLa, arXiv 2508.17376, section 3.4; t is drawn logit-normally, as in Esser et al. 2024. On
straight lines logit(t) = log(sigma / alpha): mean -0.5 and deviation 1.2 are those of Karras et al.
2022 (EDM) for data of unit variance.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shala_lite.denoiser import DENOISERS, evaluating
from shala_lite.density import log_density
from shala_lite.distributions import Posterior, standard_normal_like
from shala_lite.guidance import Given, guided_velocity, which_given
from shala_lite.latents import LatentDataset
from shala_lite.observed import draw_subsets
from shala_lite.samplers import SAMPLERS, Trajectory, Velocity
from shala_lite.schedule import SCHEDULES, diffuse, preconditioning

AGAINST = ["nothing", "guide"]
PREDICTED = ["velocity", "noise"]
AT_ONCE = 1024  # items whose graph `log_prob` holds at a time, which bounds its memory


class Samples(NamedTuple):
    """Latents (n, Z) and the denoiser evaluations that each of them cost."""

    z: Tensor
    nfe: int


class LatentPrior(nn.Module):
    """Diffusion model of z, unconditional or given the features of any subset of modalities.

    Args:
        names: the modalities, in the order of `present`.
        latent_dim: Z.
        feature_dim: D.
        denoiser: `transformer` or `mlp`, see `denoiser`.
        width, depth: sizes of the denoiser.
        tokens, heads: of the Transformer alone.
        guide_width, guide_depth: sizes of the guide, a prior of its own in `guide` that is trained
            apart from this one; width 0 is none.
        schedule: `rectified` or `variance_preserving`.
        parametrisation: whose error is the loss, that of the `velocity` or of the `noise`.
        none, one: probabilities of conditioning on nothing and on a single modality in training.
        time_mean, time_std: of logit(t) in training; a mean below 0 visits little noise more often.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        names: Sequence[str],
        *,
        latent_dim: int = 64,
        feature_dim: int = 512,
        denoiser: str = "transformer",
        width: int = 256,
        depth: int = 6,
        tokens: int = 8,
        heads: int = 4,
        guide_width: int = 0,
        guide_depth: int = 2,
        schedule: str = "rectified",
        parametrisation: str = "velocity",
        none: float = 0.4,
        one: float = 0.3,
        time_mean: float = 0.0,
        time_std: float = 1.0,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule: {schedule!r}, expected one of {sorted(SCHEDULES)}")
        if denoiser not in DENOISERS:
            raise ValueError(f"denoiser: {denoiser!r}, expected one of {sorted(DENOISERS)}")
        if parametrisation not in PREDICTED:
            raise ValueError(f"parametrisation: {parametrisation!r}, expected one of {PREDICTED}")
        if min(none, one) < 0 or none + one > 1:
            raise ValueError(f"none, one: {none}, {one}, expected probabilities with sum at most 1")
        if not time_std > 0:
            raise ValueError(f"time_std: {time_std}, expected a positive number")
        self.config: dict[str, Any] = dict(latent_dim=latent_dim, feature_dim=feature_dim)
        self.config |= dict(denoiser=denoiser, width=width, depth=depth, tokens=tokens, heads=heads)
        self.config |= dict(guide_width=guide_width, guide_depth=guide_depth, schedule=schedule)
        self.config |= dict(parametrisation=parametrisation, none=none, one=one)
        self.config |= dict(time_mean=time_mean, time_std=time_std)
        self.names, self.latent_dim, self.feature_dim = tuple(names), latent_dim, feature_dim
        self.schedule = SCHEDULES[schedule]()
        self.parametrisation, self.none, self.one = parametrisation, none, one
        self.time_mean, self.time_std = time_mean, time_std
        sizes = dict(width=width, depth=depth)
        if denoiser == "transformer":
            sizes |= dict(tokens=tokens, heads=heads)
        self.network = DENOISERS[denoiser](latent_dim, self.names, feature_dim, **sizes)
        self.guide: LatentPrior | None = None
        if guide_width:
            sizes = dict(width=guide_width, depth=guide_depth, guide_width=0)
            self.guide = LatentPrior(names, **(self.config | sizes))
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_std", torch.ones(latent_dim))
        for name in self.names:
            self.register_buffer(f"feature_mean_{name}", torch.zeros(feature_dim))
            self.register_buffer(f"feature_std_{name}", torch.ones(feature_dim))

    def standardise(self, latents: LatentDataset) -> None:
        """Fix the scale of every latent and feature dimension from the training data.

        A feature counts only where it is present; one that at most one item has keeps its scale.
        The guide gets the same.
        """
        mean, std = latents.statistics()
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)
        for index, name in enumerate(self.names):
            if name not in latents.features:
                continue
            h = latents.features[name][latents.present[:, index]]
            if len(h) > 1:
                self.get_buffer(f"feature_mean_{name}").copy_(h.mean(0))
                self.get_buffer(f"feature_std_{name}").copy_(h.std(0).clamp(min=1e-6))
        if self.guide is not None:
            self.guide.standardise(latents)

    def standardised(self, z: Tensor) -> Tensor:
        """Latents (n, Z) of the decoder in the units of the diffusion."""
        return (z - self.latent_mean) / self.latent_std

    def velocity(
        self,
        z: Tensor,
        t: Tensor,
        features: dict[str, Tensor],
        present: Tensor,
        hint: Tensor | None = None,
    ) -> Tensor:
        """E[v_t | z_t, S] in standardised units: z (B, Z), t (B,), present (B, M) bool.

        A hint is passed on to the denoiser.
        """
        skip, out, scale = (c[:, None] for c in preconditioning(self.schedule, t))
        scaled = {
            name: (h - self.get_buffer(f"feature_mean_{name}"))
            / self.get_buffer(f"feature_std_{name}")
            for name, h in features.items()
        }
        return skip * z + out * self.network(scale * z, t, scaled, present, hint)

    def loss(
        self,
        latents: Posterior,
        features: dict[str, Tensor],
        present: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The module's loss with a fresh z for every item; also that `given` any, and `nothing`."""
        z = self.standardised(latents.sample(generator))
        noise = standard_normal_like(z.shape, z, generator)
        logit = self.time_mean + self.time_std * standard_normal_like(z.shape[:1], z, generator)
        t = logit.sigmoid()
        subset = draw_subsets(present, self.none, self.one, generator)
        noisy, target = diffuse(self.schedule, z, noise, t)
        _, unit, scale = preconditioning(self.schedule, t)
        if self.parametrisation == "noise":  # 1 / c_out^2 times alpha^2 / s
            unit = unit / (self.schedule.signal(t)[0] * scale)
        error = (self.velocity(noisy, t, features, subset) - target) / unit[:, None]
        per_item, given = error.square().mean(1), subset.any(1)
        return {
            "loss": per_item.mean(),
            "given": (per_item * given).sum() / given.sum().clamp(min=1),
            "nothing": (per_item * ~given).sum() / (~given).sum().clamp(min=1),
        }

    @torch.no_grad()
    def trajectory(
        self,
        n: int,
        given: Given = None,
        present: Tensor | None = None,
        *,
        steps: int = 16,
        sampler: str = "heun",
        guidance: float = 1.0,
        against: str = "nothing",
        generator: torch.Generator | None = None,
    ) -> tuple[Trajectory, int]:
        """All states from noise to data in the decoder's units, and the evaluations (NFE).

        Arguments as in `sample`.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler: {sampler!r}, expected one of {sorted(SAMPLERS)}")
        if against not in AGAINST:
            raise ValueError(f"against: {against!r}, expected one of {AGAINST}")
        if against == "guide" and guidance != 1.0 and self.guide is None:
            raise ValueError("against: 'guide' of a prior with guide_width 0, expected it positive")
        given = given or {}
        have = which_given(n, self.feature_dim, given, present, self.names)
        have = have.to(self.latent_mean.device)
        guided = guidance != 1.0 and (against == "guide" or bool(given))
        velocity: Velocity = partial(self.velocity, features=given, present=have)
        if guided:
            worse = self.guide.velocity if self.guide and against == "guide" else None
            velocity = guided_velocity(self.velocity, given, have, guidance, worse)
        noise = standard_normal_like(torch.Size((n, self.latent_dim)), self.latent_mean, generator)
        with evaluating(self):
            states, calls = SAMPLERS[sampler](velocity, noise, steps, self.schedule, generator)
        states = [z * self.latent_std + self.latent_mean for z in states]
        return Trajectory(states, calls), calls * (2 if guided else 1)

    def sample(
        self,
        n: int,
        given: Given = None,
        present: Tensor | None = None,
        *,
        steps: int = 16,
        sampler: str = "heun",
        guidance: float = 1.0,
        against: str = "nothing",
        generator: torch.Generator | None = None,
    ) -> Samples:
        """Draw n latents.

        Args:
            n: how many.
            given: features {name: (n, D)} of any subset; None or empty is unconditional.
            present: (n, M) bool, which of the given features each item may use; None means all.
            steps: time steps of the sampler.
            sampler: one of `samplers.SAMPLERS`.
            guidance: 1 is none; above 1 exaggerates, at two evaluations in place of one.
            against: what is exaggerated: the difference to `nothing` given, which is none where
                nothing is given, or to the `guide`.
            generator: source of the noise, of every step's too where the sampler is `ancestral`.

        Raises:
            ValueError: unknown sampler or `against`, no guide, or features or `present` of another
                shape.
            KeyError: features of an unknown modality.
        """
        trajectory, nfe = self.trajectory(
            n,
            given,
            present,
            steps=steps,
            sampler=sampler,
            guidance=guidance,
            against=against,
            generator=generator,
        )
        return Samples(trajectory.states[-1], nfe)

    @torch.no_grad()
    def log_prob(
        self, z: Tensor, given: Given = None, present: Tensor | None = None, steps: int = 16
    ) -> Tensor:
        """log p(z given S) of the unguided model in nats, shape (n,), by `density.log_density`.

        Args:
            z: (n, Z), in the decoder's units, and so is the density.
            given, present: as in `sample`.
            steps: time steps of the ODE.

        Raises:
            ValueError, KeyError: as in `sample`, or z of another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z: shape {tuple(z.shape)}, expected (n, {self.latent_dim})")
        given, asked = given or {}, z
        z = z.to(self.latent_mean)
        have = which_given(len(z), self.feature_dim, given, present, self.names).to(z.device)
        found = []
        with evaluating(self):
            for some in torch.arange(len(z), device=z.device).split(AT_ONCE):
                of_some = {name: h[some] for name, h in given.items()}
                velocity = partial(self.velocity, features=of_some, present=have[some])
                found.append(log_density(velocity, self.standardised(z[some]), steps))
        return (torch.cat(found) - self.latent_std.log().sum()).to(asked)
