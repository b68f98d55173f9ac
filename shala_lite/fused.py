r"""Stage 1 of ShaLa: deterministic features of all modalities, fused into one Gaussian posterior.

    q(z | x) = N(z; mean(h_1, ..., h_M), std(h_1, ..., h_M)^2)

Source: ShaLa, arXiv 2508.17376, section 3.3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shala_lite.distributions import DiagonalGaussian
from shala_lite.fusion import FUSIONS
from shala_lite.modalities import Modality
from shala_lite.observed import draw_subsets
from shala_lite.vae import MultimodalVAE


class FusedVAE(MultimodalVAE):
    """Multimodal VAE with deterministic features fused into one Gaussian posterior.

    Args:
        modalities: what is observed; the order fixes the order of fusion.
        fusion: how features are combined, a name in `fusion.FUSIONS`.
        masked: share of the items whose posterior sees, in training, a random subset of what is
            present, while everything present is decoded. The paper's model has 0.
        cycle: weight, in nats per nat, of the contrastive term between decoded views and real
            ones, see `alignment`; it needs `alignment`. The paper's model has 0.
        shared: arguments of `MultimodalVAE`; `depth` and `hidden` are those of the fusion network.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        *,
        fusion: str = "concat",
        masked: float = 0.0,
        cycle: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(modalities, **shared)
        if fusion not in FUSIONS:
            raise ValueError(f"fusion: {fusion!r}, expected one of {sorted(FUSIONS)}")
        if not 0 <= masked <= 1:
            raise ValueError(f"masked: {masked}, expected a share between 0 and 1")
        if cycle < 0 or (cycle and not self.alignment_weight):
            raise ValueError(
                f"cycle: {cycle} with alignment {self.alignment_weight}, expected at least 0, "
                "and a positive weight of alignment beside it"
            )
        self.config |= dict(fusion=fusion, masked=masked, cycle=cycle)
        self.masked, self.cycle = masked, cycle
        self.fusion = FUSIONS[fusion](
            len(self.modalities),
            self.feature_dim,
            self.latent_dim,
            depth=self.config["depth"],
            hidden=self.config["hidden"],
        )

    def _posterior(self, features: Tensor, present: Tensor | None) -> DiagonalGaussian:
        return DiagonalGaussian(*self.fusion(features, present))

    def _objective(
        self,
        x: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None,
        beta: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        given = None
        if self.masked:
            some = next(iter(features.values()))
            full = some.new_ones(len(some), len(self.names), dtype=torch.bool)
            device = some.device if generator is None else generator.device
            kept = torch.rand(len(some), generator=generator, device=device) >= self.masked
            given = full if present is None else present
            few = draw_subsets(given, 0.0, 0.0, generator)
            given = torch.where(kept.to(some.device)[:, None], given, few)
        bound, terms, said = self._bound(x, features, present, beta, generator, given)
        if self.cycle:
            images = {m.name for m in self.modalities if m.kind == "image"}
            decoded = {
                name: y if rows is None else y.new_zeros(x[name].shape).index_copy(0, rows, y)
                for name, y, rows in said
                if name in images
            }
            terms["cycle"] = self.alignment.cycle(self.encoders, decoded, features, present)
            bound = bound - self.cycle * terms["cycle"]
        return bound, terms
