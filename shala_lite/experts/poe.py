r"""MVAE: the posterior is a product of the experts and the prior.

    q(z | x_S) ~ p(z) prod_{m in S} q(z | x_m)                       (product of experts)
    objective = ELBO(x_1, ..., x_M) + sum_m ELBO(x_m) + sum_{i <= k} ELBO(x_S_i)
                                                                     (sub-sampled training)

S_1, ..., S_k are random subsets, drawn anew for every item. Each bound counts only what its
posterior has seen. Experts multiply, so the surest one decides; one that is missing is left out.

Source: Wu and Goodman 2018, arXiv 1802.05335.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shala_lite.distributions import DiagonalGaussian, product_of_gaussians
from shala_lite.experts.base import ExpertVAE, mask_of
from shala_lite.modalities import Modality
from shala_lite.observed import draw_subsets


class PoE(ExpertVAE):
    """Multimodal VAE with a product of experts (MVAE).

    Args:
        modalities: what is observed.
        subsets: k, random subsets whose bounds are added to those of the whole and of each
            modality alone; -1 leaves out these too and trains on the whole only.
        shared: arguments of `MultimodalVAE`.
    """

    def __init__(self, modalities: Sequence[Modality], *, subsets: int = 1, **shared: Any) -> None:
        super().__init__(modalities, **shared)
        if subsets < -1:
            raise ValueError(f"subsets: {subsets}, expected -1 or more")
        self.config |= dict(subsets=subsets)
        self.subsets = subsets

    def _posterior(self, features: Tensor, present: Tensor | None) -> DiagonalGaussian:
        experts = self.experts(features, present)
        return product_of_gaussians(experts, mask_of(present, features), prior=True)

    def _objective(
        self,
        x: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None,
        beta: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        some = next(iter(features.values()))
        blank = torch.zeros_like(some)
        stacked = torch.stack([features.get(name, blank) for name in self.names], dim=1)
        whole = mask_of(present, stacked)
        sets = [whole]
        if self.subsets >= 0:
            one = torch.eye(len(self.names), dtype=torch.bool, device=some.device)
            sets += [whole & row for row in one]
            sets += [draw_subsets(whole, 0.0, 0.0, generator) for _ in range(self.subsets)]
        seen = torch.stack(sets)  # (R, B, M)
        experts = self.experts(stacked, present)
        draws = (len(seen), *experts.mean.shape)
        repeated = DiagonalGaussian(experts.mean.expand(draws), experts.std.expand(draws))
        q = product_of_gaussians(repeated, seen, prior=True)
        z, z_of, held = q.sample(generator), {}, {}
        for index, name in enumerate(self.names):
            if name in x:  # the sets that can hold it: the whole, itself alone, the random ones
                alone = [1 + index] if self.subsets >= 0 else []
                can = [0, *alone, *range(1 + len(self.names), len(seen))]
                z_of[name] = torch.stack([z[at] for at in can])
                held[name] = torch.stack([seen[at, :, index] for at in can])
        nats = self.log_likelihoods(x, z_of)  # {name: (R', B)}
        nats = {name: torch.where(held[name], each, 0) for name, each in nats.items()}
        kl = q.kl()  # 0 where nothing is seen: the product is the prior then
        objective = self._weighted(nats).sum(0).mean() - beta * kl.sum(0).mean()
        of_whole = {name: each[0] for name, each in nats.items()}
        return objective, self._terms(of_whole, kl[0].mean(), present)
