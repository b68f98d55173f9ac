r"""MMVAE: the posterior is a mixture of the experts, each drawn from in turn.

    q(z | x) = 1/M sum_m q(z | x_m)                                         (mixture of experts)
    objective = 1/M sum_m E_{z_1..z_K ~ q(z | x_m)} log 1/K sum_k p(x, z_k) / q(z_k | x)

K = 1 is the bound, stratified over experts; K > 1 is the importance-weighted one.
Every expert's draw decodes all modalities, its own and the others', so one view must do for all;
M times the decoding. The gradient is the plain reparametrised one, not the paper's DReG.

Source: Shi et al. 2019, arXiv 1911.03393.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shala_lite.distributions import DiagonalGaussian, GaussianMixture, standard_normal_log_prob
from shala_lite.experts.base import ExpertVAE, mask_of
from shala_lite.modalities import Modality


class MoE(ExpertVAE):
    """Multimodal VAE with a mixture of experts (MMVAE).

    Args:
        modalities: what is observed.
        importance_samples: K, draws from each expert in training.
        shared: arguments of `MultimodalVAE`.
    """

    def __init__(
        self, modalities: Sequence[Modality], *, importance_samples: int = 1, **shared: Any
    ) -> None:
        super().__init__(modalities, **shared)
        if importance_samples < 1:
            raise ValueError(f"importance_samples: {importance_samples}, expected at least 1")
        self.config |= dict(importance_samples=importance_samples)
        self.importance_samples = importance_samples

    def _posterior(self, features: Tensor, present: Tensor | None) -> GaussianMixture:
        experts = self.experts(features, present)
        there = mask_of(present, features)
        weights = there / there.sum(1, keepdim=True)
        return GaussianMixture(experts.mean, experts.std, weights)

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
        wanted = None if present is None else present.expand(*z.shape[:2], -1, -1)
        nats = self.log_likelihoods(x, z, wanted)  # {name: (K, M, B)}
        rate = q.log_prob(z) - standard_normal_log_prob(z)
        ratio = self._weighted(nats) - beta * rate
        bound = ratio.logsumexp(0) - math.log(len(z))  # (M, B)
        weights = q.weights.T
        mean = {name: (weights * some.mean(0)).sum(0) for name, some in nats.items()}
        kl = (weights * rate.mean(0)).sum(0).mean()
        return (weights * bound).sum(0).mean(), self._terms(mean, kl, present)
