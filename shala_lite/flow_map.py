r"""Few steps: a map that jumps along the prior's flow, distilled from the trained prior.

The average velocity over [r, t] takes z_t to z_r at once, whatever the span:

    z_r = z_t - (t - r) u(z_t, t, r),     u(z_t, t, r) = 1/(t - r) int_r^t v(z_s, s) ds

so one evaluation draws a sample, u(z_1, 1, 0), and at r = t it is the velocity itself. A student
that starts as a copy of the prior, and is told the span by an embedding that starts at zero, learns

    loss = E_{z_t, t, r} || u_theta(z_t, t, r, S) - (z_t - heun(v, z_t, t -> r)) / (t - r) ||^2

over c_out(t)^2: the teacher's flow is integrated from t to r by a few Heun steps, and the student
regresses on the average. The teacher's velocity is an expectation: its target has no noise, and
no gradient passes through it. With guidance above 1 the teacher's velocity is the guided one, and
the student needs one evaluation in place of two.

Source: the average velocity and the one-step sampler are those of MeanFlow (Geng et al. 2025,
arXiv 2505.13447); regressing the map on the integrated teacher is the oldest distillation (Luhman
and Luhman 2021, arXiv 2101.02388), here for every span, as in flow map matching (Boffi et al. 2024,
arXiv 2406.07507). MeanFlow's own target, v - (t - r) du/dt by a forward-mode product, was tried and
left out: through the time embedding's high frequencies it diverges, or with the paper's adaptive
weight learns less a second.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite.distributions import Posterior, standard_normal_like
from shala_lite.guidance import guided_velocity, which_given
from shala_lite.observed import draw_subsets
from shala_lite.prior import LatentPrior, Samples
from shala_lite.samplers import euler, heun
from shala_lite.schedule import diffuse, preconditioning

SHORTEST = 1e-3  # a span must not vanish: the average is a difference divided by it


class FlowMap(nn.Module):
    """Average velocity of a trained prior, unconditional or given the features of any subset.

    Before training it is the teacher's velocity at every span. The teacher is copied, its guide
    left out; the copy is frozen and saved with the map.

    Args:
        teacher: the trained prior.
        guidance: weight of the teacher's velocity against that given nothing; 1 is none.
        teacher_steps: Heun steps that the teacher takes over every span.
        whole: share of training spans that run from noise to data; the others are uniform.
    """

    def __init__(
        self,
        teacher: LatentPrior,
        *,
        guidance: float = 1.0,
        teacher_steps: int = 4,
        whole: float = 0.25,
    ) -> None:
        super().__init__()
        if teacher_steps < 1:
            raise ValueError(f"teacher_steps: {teacher_steps}, expected at least 1")
        if not 0 <= whole <= 1:
            raise ValueError(f"whole: {whole}, expected a share from 0 to 1")
        self.config: dict[str, Any] = dict(
            guidance=guidance, teacher_steps=teacher_steps, whole=whole
        )
        self.guidance, self.teacher_steps, self.whole = guidance, teacher_steps, whole
        self.names, self.latent_dim = teacher.names, teacher.latent_dim
        self.student = copy.deepcopy(teacher).requires_grad_(True)
        self.student.guide = None
        self.student.config["guide_width"] = 0
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        width = teacher.config["width"]
        self.span = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width))
        for parameter in self.span[-1].parameters():
            nn.init.zeros_(parameter)
        self.span.to(teacher.latent_mean.device)

    def velocity(
        self, z: Tensor, t: Tensor, r: Tensor, features: dict[str, Tensor], present: Tensor
    ) -> Tensor:
        """u(z_t, t, r, S) in standardised units: z (B, Z), t and r (B,), present (B, M) bool."""
        hint = self.span(torch.stack([t, t - r], dim=-1))
        return self.student.velocity(z, t, features, present, hint)

    def teacher_velocity(
        self, z: Tensor, t: Tensor, features: dict[str, Tensor], present: Tensor
    ) -> Tensor:
        """v(z_t, t, S) of the teacher, guided; arguments as in `velocity`.

        Where nothing is given there is nothing to exaggerate: it is the plain velocity.
        """
        if self.guidance == 1.0:
            return self.teacher.velocity(z, t, features, present)
        return guided_velocity(self.teacher.velocity, features, present, self.guidance)(z, t)

    @torch.no_grad()
    def target(
        self, z: Tensor, t: Tensor, r: Tensor, features: dict[str, Tensor], present: Tensor
    ) -> Tensor:
        """The average of the teacher's velocity from t down to r; arguments as in `velocity`."""
        span = t - r

        def rescaled(z: Tensor, s: Tensor) -> Tensor:
            """The sampler's time runs from 1 to 0 while the flow's runs from t to r."""
            v = self.teacher_velocity(z, r + s * span, features, present)
            return span[:, None] * v

        states, _ = heun(rescaled, z, self.teacher_steps, self.student.schedule)
        return (z - states[-1]) / span[:, None]

    def loss(
        self,
        latents: Posterior,
        features: dict[str, Tensor],
        present: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Squared error of the average velocity, in units of the residual c_out.

        `whole` is its mean over the spans from noise to data.
        """
        prior = self.student
        z = prior.standardised(latents.sample(generator))
        device = z.device if generator is None else generator.device
        noise = standard_normal_like(z.shape, z, generator)
        kind, *ends = torch.rand(3, len(z), generator=generator, device=device).to(z.device)
        subset = draw_subsets(present, prior.none, prior.one, generator)
        whole, (r, t) = kind < self.whole, torch.stack(ends).sort(0).values
        t = torch.where(whole, 1.0, t.clamp(min=SHORTEST))
        r = torch.where(whole, 0.0, torch.minimum(r, t - SHORTEST))
        noisy, _ = diffuse(prior.schedule, z, noise, t)
        _, out, _ = preconditioning(prior.schedule, t)
        target = self.target(noisy, t, r, features, subset)
        error = (self.velocity(noisy, t, r, features, subset) - target) / out[:, None]
        per_item = error.square().mean(1)
        return {
            "loss": per_item.mean(),
            "whole": (per_item * whole).sum() / whole.sum().clamp(min=1),
        }

    @torch.no_grad()
    def sample(
        self,
        n: int,
        given: dict[str, Tensor] | None = None,
        present: Tensor | None = None,
        *,
        steps: int = 1,
        generator: torch.Generator | None = None,
    ) -> Samples:
        """Draw n latents in the decoder's units, from the noise that the prior would start from.

        Args:
            n, given, present, generator: as in `LatentPrior.sample`, which says what is raised.
            steps: equal spans between noise and data, one evaluation each.
        """
        prior, given = self.student, given or {}
        have = which_given(n, prior.feature_dim, given, present, self.names)
        have = have.to(prior.latent_mean.device)
        noise = standard_normal_like(torch.Size((n, self.latent_dim)), prior.latent_mean, generator)

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            return self.velocity(z, t, t - 1 / steps, given, have)

        states, calls = euler(velocity, noise, steps, prior.schedule)
        return Samples(states[-1] * prior.latent_std + prior.latent_mean, calls)
