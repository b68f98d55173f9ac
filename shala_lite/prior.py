r"""Stage 2: a diffusion prior on the shared latent, given the features of any subset.

    loss = E_{z ~ q(z), e, t} || v_theta(z_t, t, {h_m : m in S}) - v_t ||^2 / c_out(t)^2

S is drawn for every item: nothing, one modality (the paper's rule), or a random subset. Sampling
may exaggerate what a velocity has over a worse one, by the factor `guidance`:

    v_guided = v_worse + guidance (v(z_t, t, S) - v_worse)

The worse one is either v(z_t, t, nothing), of the same network, which exaggerates the condition
(classifier-free guidance, Ho and Salimans 2022); or that of the guide, a smaller prior that was
trained for fewer steps, which exaggerates what is learned late and serves without a condition too
(autoguidance, Karras et al. 2024).

Source: ShaLa, arXiv 2508.17376, section 3.4; t is drawn logit-normally, as in Esser et al. 2024.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shala_lite.denoiser import DENOISERS
from shala_lite.distributions import Posterior
from shala_lite.latents import LatentDataset
from shala_lite.observed import draw_subsets
from shala_lite.samplers import SAMPLERS, Trajectory
from shala_lite.schedule import SCHEDULES, diffuse, preconditioning

AGAINST = ("nothing", "guide")


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
        none, one: probabilities of conditioning on nothing and on a single modality in training.
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
        none: float = 0.4,
        one: float = 0.3,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule: {schedule!r}, expected one of {sorted(SCHEDULES)}")
        if denoiser not in DENOISERS:
            raise ValueError(f"denoiser: {denoiser!r}, expected one of {sorted(DENOISERS)}")
        if min(none, one) < 0 or none + one > 1:
            raise ValueError(f"none, one: {none}, {one}, expected probabilities with sum at most 1")
        self.config: dict[str, Any] = dict(
            latent_dim=latent_dim,
            feature_dim=feature_dim,
            denoiser=denoiser,
            width=width,
            depth=depth,
            tokens=tokens,
            heads=heads,
            guide_width=guide_width,
            guide_depth=guide_depth,
            schedule=schedule,
            none=none,
            one=one,
        )
        self.names, self.latent_dim = tuple(names), latent_dim
        self.schedule = SCHEDULES[schedule]()
        self.none, self.one = none, one
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
        step: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Velocity matching, in units of the residual c_out, with a fresh z for every item."""
        z = (latents.sample(generator) - self.latent_mean) / self.latent_std
        device = z.device if generator is None else generator.device
        noise = torch.randn(z.shape, generator=generator, device=device).to(z.device)
        t = torch.randn(len(z), generator=generator, device=device).to(z.device).sigmoid()
        subset = draw_subsets(present, self.none, self.one, generator)
        noisy, target = diffuse(self.schedule, z, noise, t)
        _, out, _ = preconditioning(self.schedule, t)
        error = (self.velocity(noisy, t, features, subset) - target) / out[:, None]
        per_item, given = error.square().mean(1), subset.any(1)
        return {
            "loss": per_item.mean(),
            "given": (per_item * given).sum() / given.sum().clamp(min=1),
            "nothing": (per_item * ~given).sum() / (~given).sum().clamp(min=1),
        }

    def condition(
        self, n: int, given: dict[str, Tensor] | None, present: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What n samples are given, checked: features, and which each item has, (n, M) bool.

        Arguments and errors as in `sample`.
        """
        given = given or {}
        unknown = sorted(set(given) - set(self.names))
        if unknown:
            raise KeyError(f"given: unknown {unknown}, expected among {list(self.names)}")
        wrong = {name: len(h) for name, h in given.items() if len(h) != n}
        if wrong:
            raise ValueError(f"given: {wrong} items, expected n = {n}")
        device = self.latent_mean.device
        have = torch.tensor([name in given for name in self.names], device=device).expand(n, -1)
        if present is not None:
            if present.shape != have.shape:
                raise ValueError(
                    f"present: shape {tuple(present.shape)}, expected {tuple(have.shape)}"
                )
            have = have & present.to(device)
        return given, have

    @torch.no_grad()
    def trajectory(
        self,
        n: int,
        given: dict[str, Tensor] | None = None,
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
            raise ValueError(f"against: {against!r}, expected one of {list(AGAINST)}")
        if against == "guide" and guidance != 1.0 and self.guide is None:
            raise ValueError("against: 'guide' of a prior with guide_width 0, expected it positive")
        given, have = self.condition(n, given, present)
        device = have.device
        guided = guidance != 1.0 and (against == "guide" or bool(given))

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            if not guided:
                return self.velocity(z, t, given, have)
            if against == "guide":
                assert self.guide is not None
                better = self.velocity(z, t, given, have)
                worse = self.guide.velocity(z, t, given, have)
            else:  # both in one call of the network
                twice = {name: torch.cat([h, h]) for name, h in given.items()}
                present = torch.cat([have, torch.zeros_like(have)])
                pair = self.velocity(torch.cat([z, z]), torch.cat([t, t]), twice, present)
                better, worse = pair.chunk(2)
            return worse + guidance * (better - worse)

        draw_on = device if generator is None else generator.device
        noise = torch.randn(n, self.latent_dim, generator=generator, device=draw_on).to(device)
        training = self.training
        self.eval()
        try:
            states, calls = SAMPLERS[sampler](velocity, noise, steps)
        finally:
            self.train(training)
        states = [z * self.latent_std + self.latent_mean for z in states]
        return Trajectory(states, calls), calls * (2 if guided else 1)

    def sample(
        self,
        n: int,
        given: dict[str, Tensor] | None = None,
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
            sampler: `euler` or `heun`.
            guidance: 1 is none; above 1 exaggerates, at two evaluations in place of one.
            against: what is exaggerated: the difference to `nothing` given, which is none where
                nothing is given, or to the `guide`.
            generator: source of the noise.

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
