r"""MoPoE: the posterior is a mixture over all subsets, and each subset is a product of experts.

    q(z | x) = 1/|P| sum_{S in P} q(z | x_S),   q(z | x_S) ~ prod_{m in S} q(z | x_m)
    objective = E_q sum_m log p(x_m | z) - beta/|P| sum_S KL(q(z | x_S) || N(0, I))

P holds the 2^M - 1 non-empty subsets of what is present. The divergence of the mixture is replaced
by the mean of those of its parts, which is no smaller, by convexity. One subset is drawn for every
item, and decodes everything.

Source: Sutter et al. 2021, arXiv 2105.02470.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shala_lite.distributions import DiagonalGaussian, GaussianMixture
from shala_lite.experts.base import ExpertVAE, mask_of
from shala_lite.modalities import Modality
from shala_lite.observed import all_subsets


class MoPoE(ExpertVAE):
    """Multimodal VAE with a mixture of products of experts (MoPoE).

    Args:
        modalities: what is observed, at most `observed.MOST_MODALITIES`: there are 2^M - 1
            products.
        shared: arguments of `MultimodalVAE`.
    """

    subsets: Tensor

    def __init__(self, modalities: Sequence[Modality], **shared: Any) -> None:
        super().__init__(modalities, **shared)
        self.register_buffer("subsets", all_subsets(len(self.modalities)), persistent=False)

    def _posterior(self, features: Tensor, present: Tensor | None) -> GaussianMixture:
        experts = self.experts(features, present)  # (B, M, Z)
        # sums over the members of each subset are products of matrices, (K, M) with (B, M, Z)
        precision = experts.std.square().reciprocal()
        members = self.subsets.to(precision.dtype)
        total = members @ precision
        means = (members @ (precision * experts.mean)) / total
        # a subset counts if all of it is present
        given = mask_of(present, features)
        there = ~(self.subsets & ~given[:, None]).any(-1)
        weights = there / there.sum(1, keepdim=True)
        return GaussianMixture(means, total.rsqrt(), weights)

    def generator_of(
        self, features: dict[str, Tensor], present: Tensor | None = None
    ) -> DiagonalGaussian:
        """The product of all that is given: its authors generate from it, not from the mixture."""
        mixture = self.posterior(features, present)
        assert isinstance(mixture, GaussianMixture)
        # small subsets come first: the last of those that are there is all that is given
        last = (mixture.weights > 0).long().cumsum(1).argmax(1)
        rows = torch.arange(len(last), device=last.device)
        return DiagonalGaussian(mixture.means[rows, last], mixture.stds[rows, last])

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
        nats = self.log_likelihoods(x, q.sample(generator), present)
        each = DiagonalGaussian(q.means, q.stds).kl()
        kl = (q.weights * each).sum(-1).mean()
        return self._weighted(nats).mean() - beta * kl, self._terms(nats, kl, present)
