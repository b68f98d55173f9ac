r"""Which view is of the same object? A judge of likeness that knows no attributes.

One encoder maps a picture from any side to the unit sphere, phi(x), and learns on real objects to
find in a batch the other view of the same object. In a batch of objects i, two views a_i, b_i of
each, at different azimuths:

    s_ij = <phi(a_i), phi(b_j)> / tau
    loss = - mean over i of log( exp s_ii / sum_j exp s_ij )                          [nats]

and the same with a and b exchanged; it is the mean of both. The views of a generated set are of
one object, then, if a view finds another of its own set among those of `pool` sets, all seen from
the same side:

    accuracy of (m, k) = share of n with <phi(x_nm), phi(x_nk)> > <phi(x_nm), phi(x_jk)>, j != n

Chance is 1 / pool. Sets that are all alike find nothing: a tie is a miss.

Source: InfoNCE, van den Oord et al. 2018; other views as positives, Tian et al. 2020.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .datasets import MultimodalDataset
from .judge_nets import readable
from .modalities import Modality
from .nets import ImageEncoder
from .retrieval import found_among
from .view_sets import check_views, views_of

CHUNK = 500  # pictures embedded at once


class ViewGroups:
    """Objects of a data set with all their views, in the form that the training loop reads.

    An object of which fewer than two views are present is left out.

    Args:
        dataset: its image modalities, all of one shape, are the views.
    """

    def __init__(self, dataset: MultimodalDataset) -> None:
        self.views, present = views_of(dataset)
        self.objects = (present.sum(1) > 1).nonzero()[:, 0]
        self.present = present[self.objects]

    def __len__(self) -> int:
        return len(self.objects)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """{"x": (B, M, C, H, W), as the data set holds them, "present": (B, M) bool}."""
        at = indices.to(self.objects.device)
        x = torch.stack([seen[self.objects[at]] for seen in self.views.values()], 1)
        return {"x": x, "present": self.present[at]}


class ViewMatcher(nn.Module):
    """One encoder for views from all sides, trained to find another view of the same object.

    Args:
        modality: of any view: all have one shape.
        points: dimension P of the space that the sphere lies in.
        widths: channels of the encoder.
        temperature: tau.
    """

    def __init__(
        self,
        modality: Modality,
        *,
        points: int = 64,
        widths: Sequence[int] = (16, 32, 64),
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder, self.temperature = ImageEncoder(modality, points, widths), temperature

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W), uint8 or in [0, 1], on the unit sphere, (B, P)."""
        return F.normalize(self.encoder(readable(x)).float(), dim=-1)

    def loss(
        self,
        x: Tensor,
        present: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The contrastive loss in nats, and the share that finds its partner in the batch.

        Args:
            x: (B, M, C, H, W), all views of B objects.
            present: (B, M) bool, at least two of each object; None means all.
            generator: draws two views of each object; None draws the first two.
        """
        luck = torch.arange(x.shape[1], 0.0, -1, device=x.device).expand(x.shape[:2])
        if generator is not None:
            luck = torch.rand(x.shape[:2], generator=generator, device=generator.device)
        if present is not None:
            luck = luck.to(x.device).masked_fill(~present, -1)
        pair = luck.topk(2, dim=1).indices.to(x.device)  # (B, 2)
        objects = torch.arange(len(x), device=x.device)
        one, other = self(torch.cat([x[objects, pair[:, 0]], x[objects, pair[:, 1]]])).chunk(2)
        scores = one @ other.T / self.temperature
        nats = F.cross_entropy(scores, objects) + F.cross_entropy(scores.T, objects)
        return {"loss": nats / 2, "accuracy": (scores.argmax(1) == objects).float().mean()}

    @torch.no_grad()
    def embed(self, views: Mapping[str, Tensor]) -> Tensor:
        """Sets {name: (N, C, H, W)} as points (N, M, P), on the CPU, in evaluation mode."""
        check_views(views)
        training, device = self.training, next(self.parameters()).device
        self.eval()
        try:
            found = [
                torch.cat([self(chunk.to(device)).cpu() for chunk in x.split(CHUNK)])
                for x in views.values()
            ]
        finally:
            self.train(training)
        return torch.stack(found, 1)


def same_object(points: Tensor, pool: int, generator: torch.Generator) -> Tensor:
    """Share of sets whose view m finds their view k among `pool`, (M, M) float64: row m, column k.

    All candidates are views k, seen from one side. The diagonal is NaN: a view finds itself.

    Args:
        points: (N, M, P), on the CPU.
        pool: at least 2, at most N.
        generator: deals the pools, on the CPU.

    Raises:
        ValueError: another shape, or a pool that N does not fill.
    """
    if points.ndim != 3 or points.shape[1] < 2:
        raise ValueError(f"points: {tuple(points.shape)}, expected (N, M, P), M > 1")
    views = points.shape[1]
    found = torch.full((views, views), math.nan, dtype=torch.float64)
    for m, k in itertools.permutations(range(views), 2):
        right = found_among(points[:, m], points[:, k], pool, generator)
        found[m, k] = right.double().mean()
    return found
