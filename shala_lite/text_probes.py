r"""Decoders of a text trained on a stage 1 that stays as it is: what does z hold, for whom?

    independent        log p(y | z) = sum_l log p(y_l | z)
    autoregressive     log p(y | z) = sum_l log p(y_l | z, y_1, ..., y_{l-1})           [nats]

Two kinds of decoder that read the same z tell apart what z lacks and what a decoder makes of it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shala_lite.distributions import DiagonalGaussian
from shala_lite.modalities import Modality
from shala_lite.stages import seeded
from shala_lite.text_nets import Context, TextDecoder
from shala_lite.training import fit

RATE, BATCH = 3e-3, 128


class IndependentTextDecoder(TextDecoder):
    """As `TextDecoder`, but that no position knows of another: each decides by z alone."""

    def __init__(self, modality: Modality, latent_dim: int, width: int) -> None:
        super().__init__(modality, latent_dim, width)
        del self.embedding, self.before, self.modulate
        self.last = nn.Conv1d(width, self.tokens, 3, padding=1)

    def context(self, z: Tensor) -> Context:
        """`places` alone, (B, width, L)."""
        return (self.places(z),)

    def logits(self, context: Context, ids: Tensor) -> Tensor:
        """Logits (B, L, V) given what z says; `ids` (B, L) are not read."""
        return self.last(context[0]).mT.float()


DECODERS = {"autoregressive": TextDecoder, "independent": IndependentTextDecoder}


class _Reading(nn.Module):
    """A decoder with the loss that `fit` asks for."""

    def __init__(self, decoder: TextDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def loss(
        self, mean: Tensor, std: Tensor, ids: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Nats a token, of a fresh z for every item."""
        logits = self.decoder(DiagonalGaussian(mean, std).sample(generator), ids)
        return {"loss": F.cross_entropy(logits.mT, ids)}


class _Read:
    """Posteriors and the texts that belong to them, in the form that `fit` reads."""

    def __init__(self, posterior: DiagonalGaussian, ids: Tensor) -> None:
        self.posterior, self.ids = posterior, ids

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        some = self.posterior[indices]
        return {"mean": some.mean, "std": some.std, "ids": self.ids[indices].long()}


def text_decoder(
    kind: str,
    modality: Modality,
    posterior: DiagonalGaussian,
    ids: Tensor,
    *,
    width: int,
    steps: int,
    seed: int = 0,
) -> TextDecoder:
    """A new decoder of that kind, trained on draws of given posteriors, in evaluation mode.

    Args:
        kind: in `DECODERS`.
        modality: the text.
        posterior: q(z | x) of N items, (N, Z).
        ids: their texts (N, L).
        width: channels.
        steps: of `BATCH` items, or of all where there are fewer.
        seed: of the weights, the order and the draws.

    Raises:
        ValueError: an unknown kind, or another number of texts than of posteriors.
    """
    if kind not in DECODERS:
        raise ValueError(f"kind: {kind!r}, expected one of {sorted(DECODERS)}")
    if len(ids) != len(posterior.mean):
        raise ValueError(f"ids: {len(ids)} texts, expected {len(posterior.mean)}, one a posterior")
    with seeded(seed):
        decoder = DECODERS[kind](modality, posterior.mean.shape[1], width)
    budget: Any = dict(steps=steps, batch_size=min(BATCH, len(ids)), learning_rate=RATE, seed=seed)
    fit(_Reading(decoder), _Read(posterior, ids), label=f"{kind} decoder", **budget)
    return decoder
