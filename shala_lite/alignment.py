r"""Alignment of features: what two views of one thing share should be found in both.

    s_mk(i, j) = <g_m(h_m,i), g_k(h_k,j)> / tau                       on the unit sphere
    loss = - mean over m != k, i of log( exp s_mk(i, i) / sum_j exp s_mk(i, j) )        [nats]

The ELBO rewards a feature for what it tells of its own picture, and most of that is background.
This term rewards it for what picks out the right partner in a batch, which is only what views
share. It sees no label. The paper trains without it; weight 0 leaves it out.

Beside the ELBO it starves: at thousands of nats a set, backgrounds own the gradient until they are
learned. `AlignFirst` therefore trains the encoders on it alone for a while, before there is a
latent. No decoder runs, so such a step costs a small part of one on the ELBO.

`Alignment.cycle` asks the same of what is decoded. With y_m the decoded view m, and h(y_m) what the
encoder of m finds in it, g_m(h(y_m), i) has to pick out the real views k != m of item i. The
likelihood of pixels forgives a stroke that is cut short. This term does not, if it made the digit.

Source: InfoNCE, van den Oord et al. 2018; between all pairs of views as in Tian et al. 2020. Cycle
consistency: Zhu et al. 2017; a distance in the features of a network: Johnson et al. 2016.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
        points = self._points({name: self.heads[name](h) for name, h in features.items()})
        there = _all_there(points, present)
        return self._contrast(points, points, there, there)

    def cycle(
        self,
        encoders: Encoders,
        decoded: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None = None,
    ) -> Tensor:
        """The same loss between decoded views and the others' features, for who decoded them.

        It has no gradient with respect to the encoders, the heads and `features`, so that only
        decoded views can become better.

        Args:
            encoders: of real views; they stay in the state of evaluation meanwhile.
            decoded: {name: (B, *shape)} of some modalities in `features`.
            features: {name: (B, D)} of real views.
            present: (B, M) bool, columns in the order of the encoders; None means all.
        """
        training = encoders.training
        encoders.eval()
        try:
            heard = _fixed(encoders, decoded, present)
        finally:
            encoders.train(training)
        if present is not None:
            columns = [[*encoders.modalities].index(name) for name in features]
            present = present[:, columns]
        heard |= {name: torch.zeros_like(h) for name, h in features.items() if name not in heard}
        sides = ({name: heard[name] for name in features}, features)
        left, right = (
            self._points({name: _fixed(self.heads[name], h) for name, h in side.items()})
            for side in sides
        )
        there = _all_there(right, present)
        asks = there.clone()
        for index, name in enumerate(features):
            if name not in decoded:
                asks[:, index].fill_(False)
        return self._contrast(left, right.detach(), asks, there)

    def _points(self, projected: dict[str, Tensor]) -> Tensor:
        points = torch.stack([*projected.values()])  # (M, B, P)
        return nn.functional.normalize(points.float(), dim=-1)

    def _contrast(self, left: Tensor, right: Tensor, asks: Tensor, there: Tensor) -> Tensor:
        """Points (M, B, P) find partners among others; (B, M) bool who asks, and who is there."""
        scores = torch.einsum("mip,kjp->mkij", left, right) / self.temperature
        scores = scores.masked_fill(~there.T[None, :, None, :], -torch.inf)
        pairs = asks.T[:, None] & there.T[None]  # (M, M, B): item i has both m and k
        pairs = pairs & ~torch.eye(len(left), dtype=torch.bool, device=pairs.device)[..., None]
        losses = scores.logsumexp(-1) - scores.diagonal(dim1=-2, dim2=-1)
        return torch.where(pairs, losses, 0).sum() / pairs.sum().clamp(min=1)


def _all_there(points: Tensor, present: Tensor | None) -> Tensor:
    """`present`, or all of it, (B, M) bool, for points (M, B, P)."""
    if present is not None:
        return present
    return torch.ones(points.shape[1], len(points), dtype=torch.bool, device=points.device)


def _fixed(net: nn.Module, *inputs: Any) -> Any:
    """What `net` says of the inputs, with no gradient with respect to its own parameters."""
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    return functional_call(net, parameters, inputs)


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
