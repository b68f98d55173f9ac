r"""Fusion: the features of all modalities become the parameters of one Gaussian over z.

    u = W_4 s(W_3 s(W_2 s(W_1 [h_1; ...; h_M]))),   mean, log std = split(u)

The paper fuses with four linear layers over the concatenation. A modality that is absent is
replaced by a learned stand-in feature, so that the posterior exists for every subset.
"""

import torch
from torch import Tensor, nn

MIN_STD, MAX_STD = 1e-3, 10.0


class ConcatFusion(nn.Module):
    """Concatenated features to mean and standard deviation of q(z given x).

    Args:
        modalities: M, the number of features.
        feature_dim: D, the size of each.
        latent_dim: Z.
        depth: number of linear layers, at least 1.
        hidden: width of the layers between.
    """

    def __init__(
        self, modalities: int, feature_dim: int, latent_dim: int, depth: int, hidden: int
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth: {depth}, expected at least 1")
        self.absent = nn.Parameter(torch.zeros(modalities, feature_dim))
        width = modalities * feature_dim
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.SiLU()]
            width = hidden
        layers.append(nn.Linear(width, 2 * latent_dim))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, M, D) and present (B, M) bool to mean and std, each (B, Z)."""
        features = torch.where(present[..., None], features, self.absent.to(features.dtype))
        mean, log_std = self.layers(features.flatten(1)).float().chunk(2, dim=-1)
        # softplus keeps the gradient alive on both sides; the bounds keep log_prob finite
        std = nn.functional.softplus(log_std).clamp(MIN_STD, MAX_STD)
        return mean, std


FUSIONS = {"concat": ConcatFusion}
