r"""Fusion: the features of all modalities become the parameters of one Gaussian over z.

    concat      u = W_4 s(W_3 s(W_2 s(W_1 [h_1; ...; h_M])))
    sum         u = W_4 s(W_3 s(W_2 s(W_1 (h_1 + ... + h_M))))
    attention   u = W r,   r a token that attends to the tokens h_m + e_m of what is present

    mean, r = split(u),   std = log(1 + exp r), kept between MIN_STD and MAX_STD

The paper fuses with four linear layers over the concatenation, and compares with a sum. A modality
that is absent is replaced by a learned stand-in in the first two, and is no token in the third, so
that the posterior exists for every subset.

Source: ShaLa, arXiv 2508.17376, section 3.3; attention as in Vaswani et al. 2017.
"""

import torch
from torch import Tensor, nn

from shala_lite.distributions import mean_and_std
from shala_lite.nets import linear_layers


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
        self.absent = nn.Parameter(torch.zeros(modalities, feature_dim))
        self.layers = linear_layers(modalities * feature_dim, 2 * latent_dim, depth, hidden)

    def forward(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map features (B, M, D) and present (B, M) bool, None for all, to mean and std (B, Z)."""
        if present is not None:
            features = torch.where(present[..., None], features, self.absent.to(features.dtype))
        return mean_and_std(self.layers(features.flatten(1)))


class SumFusion(nn.Module):
    """Summed features to mean and standard deviation; arguments as in `ConcatFusion`.

    The order of the modalities is forgotten: only what their encoders made of them is left.
    """

    def __init__(
        self, modalities: int, feature_dim: int, latent_dim: int, depth: int, hidden: int
    ) -> None:
        super().__init__()
        self.absent = nn.Parameter(torch.zeros(modalities, feature_dim))
        self.layers = linear_layers(feature_dim, 2 * latent_dim, depth, hidden)

    def forward(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map features (B, M, D) and present (B, M) bool, None for all, to mean and std (B, Z)."""
        if present is not None:
            features = torch.where(present[..., None], features, self.absent.to(features.dtype))
        return mean_and_std(self.layers(features.sum(1)))


class AttentionFusion(nn.Module):
    """A Transformer over the features as tokens; arguments as in `ConcatFusion`.

    `depth` counts its blocks and `hidden` is the width between their two linear layers. Tokens are
    D wide.
    """

    def __init__(
        self, modalities: int, feature_dim: int, latent_dim: int, depth: int, hidden: int
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth: {depth}, expected at least 1")
        self.reader = nn.Parameter(0.02 * torch.randn(feature_dim))
        self.places = nn.Parameter(0.02 * torch.randn(modalities, feature_dim))
        heads = next(count for count in (4, 2, 1) if feature_dim % count == 0)
        block = nn.TransformerEncoderLayer(
            feature_dim, heads, hidden, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, depth, norm=nn.LayerNorm(feature_dim), enable_nested_tensor=False
        )
        self.head = nn.Linear(feature_dim, 2 * latent_dim)

    def forward(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map features (B, M, D) and present (B, M) bool, None for all, to mean and std (B, Z)."""
        absent = None
        if present is not None:
            features = torch.where(present[..., None], features, 0)
            absent = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        tokens = features + self.places
        tokens = torch.cat([self.reader.expand(len(tokens), 1, -1), tokens], dim=1)
        read = self.blocks(tokens, src_key_padding_mask=absent)[:, 0]
        return mean_and_std(self.head(read))


FUSIONS = {"concat": ConcatFusion, "sum": SumFusion, "attention": AttentionFusion}
