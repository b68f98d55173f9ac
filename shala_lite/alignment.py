r"""Alignment of features: what two views of one thing share should be found in both.

    s_mk(i, j) = <g_m(h_m,i), g_k(h_k,j)> / tau                       on the unit sphere
    loss = - mean over m != k, i of log( exp s_mk(i, i) / sum_j exp s_mk(i, j) )        [nats]

The ELBO rewards a feature for what it tells of its own picture, and most of that is background.
This term rewards it for what picks out the right partner in a batch, which is only what views
share. It sees no label. The paper trains without it; weight 0 leaves it out.

Beside the ELBO it starves: at thousands of nats a set, backgrounds own the gradient until they are
learned. `AlignFirst` therefore trains the encoders on it alone for a while, before there is a
latent. No decoder runs, so such a step costs a small part of one on the ELBO.

Source: InfoNCE, van den Oord et al. 2018; between all pairs of views as in Tian et al. 2020.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shala_lite.banks import Encoders


class Alignment(nn.Module):
    """Contrastive loss between the features of all pairs of modalities.

    Args:
        names: the modalities.
        feature_dim: D.
        width: dimension of the sphere on which features are compared.
        temperature: tau.
    """

    def __init__(
        self,
        names: Sequence[str],
        feature_dim: int,
        width: int = 64,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.temperature, self.feature_dim = temperature, feature_dim
        self.heads = nn.ModuleDict({name: nn.Linear(feature_dim, width) for name in names})

    def forward(self, features: dict[str, Tensor], present: Tensor | None = None) -> Tensor:
        """Mean loss in nats, a scalar; 0 where no pair of modalities is present.

        Args:
            features: {name: (B, D)}.
            present: (B, M) bool, columns in the order of `features`; None means all.
        """
        some = next(iter(features.values()))
        if present is None:
            present = torch.ones(len(some), len(features), dtype=torch.bool, device=some.device)
        points = torch.stack([self.heads[name](h) for name, h in features.items()])  # (M, B, P)
        points = nn.functional.normalize(points.float(), dim=-1)
        scores = torch.einsum("mip,kjp->mkij", points, points) / self.temperature
        scores = scores.masked_fill(~present.T[None, :, None, :], -torch.inf)
        pairs = present.T[:, None] & present.T[None]  # (M, M, B): item i has both m and k
        pairs = pairs & ~torch.eye(len(features), dtype=torch.bool, device=pairs.device)[..., None]
        losses = scores.logsumexp(-1) - scores.diagonal(dim1=-2, dim2=-1)
        return torch.where(pairs, losses, 0).sum() / pairs.sum().clamp(min=1)


class AlignFirst(nn.Module):
    """The encoders and their alignment, with a loss of its own; for `training.fit`.

    Args:
        encoders: a bank of encoders, trained in place, from x_m to h_m (B, D).
        alignment: heads for the same names, trained in place.
    """

    def __init__(self, encoders: Encoders, alignment: Alignment) -> None:
        super().__init__()
        self.encoders, self.alignment = encoders, alignment

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The contrastive loss, in nats; `generator` is not used.

        Args:
            x: {name: (B, *shape)} of all modalities.
            present: (B, M) bool, columns in the order of the encoders; None means all.
        """
        return {"loss": self.alignment(self.encoders(x, present), present)}
