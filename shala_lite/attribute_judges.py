r"""What a picture shows, attribute by attribute, and whether a sentence about it is true.

A sentence tells a few attributes of what it describes and is silent about the rest. So each
attribute a has a judge of its own, f_a(x), which looks at pictures, real or generated. All judges
share one convolutional body, are trained on real training pictures alone, and are then frozen.

    accuracy of what is said = sum_{n, a} s_na [ f_a(x_n) = v_na ]  /  sum_{n, a} s_na

v_na is the value that sentence n says of attribute a, and s_na is 1 where it says one. The accuracy
on real test pictures is the ceiling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .agreement import shares, total_variation
from .datasets import MultimodalDataset, sentences
from .judge_nets import random_shift, readable
from .modalities import Modality
from .nets import ImageEncoder

CHUNK = 500  # pictures judged at once
SILENT = -1  # what a sentence says of an attribute that it does not mention

Values = Mapping[str, Tensor]


class Agreement(NamedTuple):
    """The share of statements that hold, 0 where there are none, and how many there are."""

    share: float
    statements: int


class AttributeData:
    """Pictures of a data set with their attributes, in the form that the training loop reads.

    Args:
        dataset: with `attributes`.
        image: the name of the modality that is looked at.
        names: which attributes, in the order of the columns of a batch's `values`.
    """

    def __init__(self, dataset: MultimodalDataset, image: str, names: Iterable[str]) -> None:
        names = list(names)
        if missing := sorted(set(names) - set(dataset.attributes)):
            raise ValueError(
                f"names: {missing} unknown, expected some of {sorted(dataset.attributes)}"
            )
        self.x = dataset.observations[image]
        self.values = torch.stack([dataset.attributes[name] for name in names], 1)

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """{"x": (B, C, H, W) in [0, 1], "values": (B, A) int64}."""
        at = indices.to(self.values.device)
        return {"x": readable(self.x[at]), "values": self.values[at]}


class AttributeJudge(nn.Module):
    """One convolutional classifier with a head for each attribute.

    Args:
        modality: an image modality.
        classes: {attribute: number of its values}.
        width: channels after the first of three halvings; the next ones have two and four times
            as many, and the feature that all heads read has eight times.
        shift: in training, pictures move by up to this many pixels in both directions.
    """

    def __init__(
        self, modality: Modality, classes: Mapping[str, int], *, width: int = 16, shift: int = 2
    ) -> None:
        super().__init__()
        if not classes or min(classes.values()) < 2:
            raise ValueError(f"classes: {dict(classes)}, expected numbers of at least 2")
        self.classes, self.shift = dict(classes), shift
        self.body = ImageEncoder(modality, 8 * width, [width, 2 * width, 4 * width])
        # one linear layer for all heads: each attribute owns a part of its outputs
        self.heads = nn.Linear(8 * width, sum(classes.values()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits {attribute: (B, values)} of pictures (B, C, H, W), uint8 or in [0, 1]."""
        return self._logits(self.body(readable(x)))

    def _logits(self, features: Tensor) -> dict[str, Tensor]:
        logits = self.heads(F.silu(features)).float()
        parts = logits.split(list(self.classes.values()), -1)
        return dict(zip(self.classes, parts, strict=True))

    def loss(
        self,
        x: Tensor,
        values: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Cross entropy in nats, summed over attributes, and the mean share that is right.

        Args:
            x: (B, C, H, W).
            values: (B, A) int64, columns in the order of `classes`.
            generator: draws the augmentation; without one there is none.
        """
        x = readable(x)
        if self.training and generator is not None:
            x = random_shift(x, self.shift, generator)
        found = list(zip(self(x).values(), values.T, strict=True))
        right = [(logits.argmax(-1) == value).float().mean() for logits, value in found]
        nats = torch.stack([F.cross_entropy(logits, value) for logits, value in found])
        return {"loss": nats.sum(), "accuracy": torch.stack(right).mean()}

    @torch.no_grad()
    def look(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (N, 8 width) of pictures (N, C, H, W), and what they show: see `read`."""
        training, device = self.training, next(self.parameters()).device
        self.eval()
        try:
            seen = [self.body(readable(chunk.to(device))).float() for chunk in x.split(CHUNK)]
            features = torch.cat(seen)
            found = {n: logits.argmax(-1).cpu() for n, logits in self._logits(features).items()}
        finally:
            self.train(training)
        return features.cpu(), found

    def read(self, x: Tensor) -> dict[str, Tensor]:
        """What pictures (N, C, H, W) show: {attribute: (N,) int64}, on the CPU, in eval mode."""
        return self.look(x)[1]


def statements(modality: Modality, ids: Tensor) -> dict[str, Tensor]:
    """What sentences (N, L) about birds say: {attribute: (N,)}, -1 for silence."""
    if modality.vocabulary is None:
        raise ValueError(f"modality: {modality.name!r} has no vocabulary, expected a text")
    found = sentences.read_off(modality.vocabulary.decode(ids.cpu()))
    return {name: torch.from_numpy(values) for name, values in found.items()}


def agreement(said: Values, shown: Values, names: Iterable[str] | None = None) -> Agreement:
    """How much of what is said is shown, over all items and attributes.

    Args:
        said: {attribute: (N,)}, -1 where a sentence is silent.
        shown: {attribute: (N,)}, what a picture shows, or the truth.
        names: of the attributes that count; None is all of `said`.

    Raises:
        ValueError: shapes that differ, or an attribute that is missing.
    """
    right = count = 0
    for name in said if names is None else names:
        if name not in said or name not in shown or said[name].shape != shown[name].shape:
            raise ValueError(f"names: {name!r} missing, or not of one shape, in said and shown")
        told, seen = said[name].cpu(), shown[name].cpu()
        right += int(((told == seen) & (told != SILENT)).sum())
        count += int((told != SILENT).sum())
    return Agreement(right / max(count, 1), count)


def commonest(said: Values, known: Values, names: Iterable[str] | None = None) -> Agreement:
    """The floor of `agreement`: of each attribute, always the commonest value in `known`."""
    guess = {}
    for name, told in said.items():
        guess[name] = torch.full_like(told.cpu(), int(known[name].cpu().bincount().argmax()))
    return agreement(said, guess, names)


def mentions(said: Values) -> Tensor:
    """How many attributes each of N sentences tells, (N,) int64."""
    return torch.stack([told.cpu() != SILENT for told in said.values()]).sum(0)


def left_open(said: Values, shown: Values, known: Values) -> dict[str, float]:
    """Total variation between what is shown where a sentence is silent, and the data.

    0 is the data's own variety, and a model that always shows one value is far from it. Samples
    differ from the data by chance too: compare with real items.

    Args:
        said, shown: as in `agreement`.
        known: {attribute: (K,)}, the attribute in the data.

    Returns:
        {attribute: distance}, of those on which some sentence is silent.
    """
    found = {}
    for name, told in said.items():
        open_ = shown[name].cpu()[told.cpu() == SILENT]
        if len(open_):
            data = known[name].cpu()
            most = 1 + int(max(open_.max(), data.max()))
            found[name] = total_variation(shares(open_, most), shares(data, most)).item()
    return found
