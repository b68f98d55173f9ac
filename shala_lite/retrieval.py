r"""Does a picture belong to its sentence? A judge that knows no attributes: it finds partners.

Two encoders map pictures and sentences to one sphere, trained on real pairs to pick out the right
partner in a batch (`alignment`). A generated picture is then as good as a real one if its sentence
is found among `pool` sentences as often as with the real picture. Chance is 1 / pool.

    retrieval = share of n with  <g(x_n), k(y_n)>  >  <g(x_n), k(y_j)>  for all j != n of the pool
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .alignment import AlignFirst, Alignment
from .banks import Encoders
from .judge_nets import readable
from .modalities import Modality

CHUNK = 500  # observations embedded at once


class Matcher(AlignFirst):
    """Encoders of all modalities, trained to find each other's partners; for `training.fit`.

    Args:
        modalities: two or more.
        feature_dim: D of the encoders.
        widths: channels of the image encoder.
        text_width: channels of the text encoder.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        *,
        feature_dim: int = 64,
        widths: Sequence[int] = (16, 32, 64),
        text_width: int = 64,
    ) -> None:
        sizes = dict(feature_dim=feature_dim, widths=widths, text_width=text_width, residual=0)
        names = [modality.name for modality in modalities]
        if len(names) < 2:
            raise ValueError(f"modalities: {names}, expected at least two")
        super().__init__(Encoders(modalities, sizes), Alignment(names, feature_dim))

    @torch.no_grad()
    def points(self, name: str, x: Tensor) -> Tensor:
        """Observations (N, *shape) of a modality on the unit sphere (N, P), on the CPU."""
        training, device = self.training, next(self.parameters()).device
        encoder, head = self.encoders[name], self.alignment.heads[name]
        found = []
        self.eval()
        try:
            for chunk in x.split(CHUNK):
                features = encoder(readable(chunk.to(device)))
                found.append(F.normalize(head(features), dim=-1))
        finally:
            self.train(training)
        return torch.cat(found).float().cpu()


def found_among(asked: Tensor, answers: Tensor, pool: int, generator: torch.Generator) -> Tensor:
    """Whether each item finds its partner among `pool`, (N',) bool.

    Items are dealt out at random into groups of `pool`; what does not fill a group is left out. A
    partner that ties with another is not found, or a constant answer would be right each time.

    Args:
        asked: (N, P), such as generated pictures.
        answers: (N, P), real partners, in the same order.
        pool: at least 2, at most N.
        generator: deals, on the CPU.
    """
    if asked.shape != answers.shape or asked.ndim != 2:
        raise ValueError(
            f"asked, answers: {tuple(asked.shape)}, {tuple(answers.shape)}; expected one (N, P)"
        )
    if not 2 <= pool <= len(asked):
        raise ValueError(f"pool: {pool}, expected 2 to {len(asked)}")
    order = torch.randperm(len(asked), generator=generator)
    groups = order[: len(asked) // pool * pool].view(-1, pool)
    scores = torch.einsum("gip,gjp->gij", asked[groups], answers[groups])
    own = scores.diagonal(dim1=1, dim2=2)
    others = scores.masked_fill(torch.eye(pool, dtype=torch.bool), -torch.inf)
    return (own > others.amax(2)).flatten()


def lower_bound(share: float, count: int) -> float:
    """Lower end of the 95% interval of a binomial share, after Wilson (1927).

    Args:
        share: in [0, 1].
        count: how many independent trials it is of.
    """
    if not 0 <= share <= 1 or count < 1:
        raise ValueError(f"share, count: {share}, {count}; expected in [0, 1], and at least 1")
    z2 = 1.959964**2
    centre = share + z2 / (2 * count)
    spread = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2)))
    return max(0.0, (centre - spread) / (1 + z2 / count))
