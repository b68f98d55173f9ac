"""What the baselines share: an encoder with a Gaussian of its own for every modality."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite.distributions import DiagonalGaussian, mean_and_std
from shala_lite.modalities import Modality
from shala_lite.nets import apply_to_few, linear_layers
from shala_lite.vae import MultimodalVAE


class ExpertVAE(MultimodalVAE):
    """A VAE whose posterior is made of one Gaussian expert q(z | x_m) for each modality.

    Args:
        modalities: what is observed.
        shared: arguments of `MultimodalVAE`; `depth` and `hidden` are those of the layers between
            a feature and its expert.
    """

    def __init__(self, modalities: Sequence[Modality], **shared: Any) -> None:
        super().__init__(modalities, **shared)
        sizes = dict(depth=self.config["depth"], hidden=self.config["hidden"])
        self.heads = nn.ModuleDict(
            {
                name: linear_layers(self.feature_dim, 2 * self._expert_dim(), **sizes)
                for name in self.names
            }
        )

    def _expert_dim(self) -> int:
        """Dimensions of z that one modality speaks of."""
        return self.latent_dim

    def experts(self, features: Tensor, present: Tensor | None = None) -> DiagonalGaussian:
        """One Gaussian for each item and modality, N(0, I) where it is absent.

        Args:
            features: shape (B, M, D).
            present: shape (B, M) bool; None means all.

        Returns:
            Mean and std of shape (B, M, Z).
        """
        found = []
        for index, name in enumerate(self.names):
            h, head = features[:, index], self.heads[name]
            if present is None:
                found.append(mean_and_std(apply_to_few(head, h)))
                continue
            rows = present[:, index].nonzero()[:, 0]
            mean = h.new_zeros(len(h), self._expert_dim(), dtype=torch.float32)
            std = torch.ones_like(mean)
            if len(rows):
                own = mean_and_std(apply_to_few(head, h[rows]))
                mean, std = (to.index_copy(0, rows, new) for to, new in zip((mean, std), own))
            found.append((mean, std))
        means, stds = zip(*found)
        return DiagonalGaussian(torch.stack(means, 1), torch.stack(stds, 1))


def mask_of(present: Tensor | None, features: Tensor) -> Tensor:
    """The mask (B, M) bool of features (B, M, D): `present`, or all where that is None."""
    return features.new_ones(features.shape[:2], dtype=torch.bool) if present is None else present
