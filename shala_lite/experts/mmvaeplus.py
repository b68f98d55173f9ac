r"""MMVAE+: a mixture of experts on a shared part of z, and a private part for each modality.

    z = [u, w_1, ..., w_M],   decoder m reads [u, w_m]
    q(u, w | x) = 1/M sum_m q(u | x_m)  prod_n q(w_n | x_n)

    objective = 1/M sum_m E[ log p(x_m | u, w_m) + sum_{n != m} log p(x_n | u, v_n)
                             + beta log p(u) p(w_m) / (q(u | x) q(w_m | x_m)) ]
    with  u, w_m ~ q(. | x_m),   v_n ~ r_n = N(0, diag(s_n^2)),  s_n learned

The auxiliary priors r_n stand in for w_n where another modality is decoded, so that u cannot be
helped by a private part that has seen the answer. Once trained, what is absent has w_n ~ N(0, I).
Experts for u and for w_m come from one encoder here.

Source: Palumbo et al. 2023, "MMVAE+: Enhancing the Generative Quality of Multimodal VAEs without
Compromises", ICLR.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite.distributions import (
    DiagonalGaussian,
    GaussianMixture,
    standard_normal_like,
    standard_normal_log_prob,
)
from shala_lite.experts.base import ExpertVAE, mask_of
from shala_lite.modalities import Modality


class MMVAEPlus(ExpertVAE):
    """Multimodal VAE with a mixture of experts and private latents (MMVAE+).

    Args:
        modalities: what is observed.
        private_dim: dimensions of each w_m, at least 1. `latent_dim`, Z, counts all of z: a decoder
            reads Z - (M - 1) * private_dim numbers.
        importance_samples: K, draws from each expert in training, as in `MoE`.
        shared: arguments of `MultimodalVAE`.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        *,
        private_dim: int,
        importance_samples: int = 1,
        **shared: Any,
    ) -> None:
        latent_dim, count = shared.get("latent_dim", 64), len(modalities)
        self.private_dim, self.shared_dim = private_dim, latent_dim - count * private_dim
        if private_dim < 1 or self.shared_dim < 1:
            raise ValueError(
                f"private_dim: {private_dim} for {count} modalities of latent_dim {latent_dim}, "
                "expected at least 1, and a latent_dim above their product"
            )
        if importance_samples < 1:
            raise ValueError(f"importance_samples: {importance_samples}, expected at least 1")
        super().__init__(modalities, **shared)
        self.config |= dict(private_dim=private_dim, importance_samples=importance_samples)
        self.importance_samples = importance_samples
        self.log_scale = nn.Parameter(torch.zeros(count, private_dim))

    def _decoder_dim(self) -> int:
        return self.shared_dim + self.private_dim

    def _expert_dim(self) -> int:
        return self.shared_dim + self.private_dim

    def _private(self, index: int) -> slice:
        start = self.shared_dim + index * self.private_dim
        return slice(start, start + self.private_dim)

    def _decoder_input(self, z: Tensor, index: int) -> Tensor:
        return torch.cat([z[..., : self.shared_dim], z[..., self._private(index)]], dim=-1)

    def _join(self, shared: Tensor, private: Tensor) -> Tensor:
        """Shared (..., M, U) and private (..., M, W) parts to M latents (..., M, Z)."""
        every = private.flatten(-2)[..., None, :].expand(*shared.shape[:-1], -1)
        return torch.cat([shared, every], dim=-1)

    def _posterior(self, features: Tensor, present: Tensor | None) -> GaussianMixture:
        experts = self.experts(features, present)
        parts = [self.shared_dim, self.private_dim]
        means, stds = experts.mean.split(parts, -1), experts.std.split(parts, -1)
        there = mask_of(present, features)
        weights = there / there.sum(1, keepdim=True)
        return GaussianMixture(self._join(*means), self._join(*stds), weights)

    def _objective(
        self,
        x: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None,
        beta: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q = self.posterior(features, present)
        assert isinstance(q, GaussianMixture)
        draws = (self.importance_samples, *q.means.shape)
        each = DiagonalGaussian(q.means.expand(draws), q.stds.expand(draws))
        z = each.sample(generator).movedim(2, 1)  # (K, M, B, Z): a draw from expert M of item B
        count, start = len(self.names), self.shared_dim
        private = z[..., start:].unflatten(-1, (count, -1))  # (K, M, B, M, W)
        own = torch.eye(count, dtype=torch.bool, device=z.device)[:, None, :, None]
        noise = standard_normal_like(private.shape, private, generator)
        mixed = torch.where(own, private, self.log_scale.exp() * noise)
        z_decoded = torch.cat([z[..., :start], mixed.flatten(-2)], dim=-1)
        wanted = None if present is None else present.expand(*z.shape[:2], -1, -1)
        nats = self.log_likelihoods(x, z_decoded, wanted)  # {name: (K, M, B)}

        u = z[..., :start]
        mixture = GaussianMixture(q.means[..., :start], q.stds[..., :start], q.weights)
        rate = mixture.log_prob(u) - standard_normal_log_prob(u)
        at = torch.arange(count, device=z.device)
        w = private[:, at, :, at].movedim(1, 0)  # (K, M, B, W): each expert's own
        means = q.means[:, 0, start:].unflatten(-1, (count, -1)).movedim(1, 0)
        stds = q.stds[:, 0, start:].unflatten(-1, (count, -1)).movedim(1, 0)
        rate = rate + DiagonalGaussian(means, stds).log_prob(w) - standard_normal_log_prob(w)

        ratio = self._weighted(nats) - beta * rate
        bound = ratio.logsumexp(0) - math.log(len(z))
        weights = q.weights.T
        mean = {name: (weights * some.mean(0)).sum(0) for name, some in nats.items()}
        terms = self._terms(mean, (weights * rate.mean(0)).sum(0).mean(), present)
        return (weights * bound).sum(0).mean(), terms
