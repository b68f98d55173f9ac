"""A multimodal data set that lies in memory, whole, on the device where it is used.

Images stay uint8 and become floats in [0, 1] one batch at a time, on that device: 60,000 sets of
five 28x28 colour images are 0.7 GB this way, and no loader process is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..modalities import Modality

DTYPES = {"image": torch.uint8, "text": torch.int16}


@dataclass(eq=False)
class MultimodalDataset:
    """N items, each seen through M modalities.

    Args:
        modalities: the M modalities, in order.
        observations: for each modality's name a tensor (N, *shape): uint8 for images, which are
            CHW, int16 token ids for texts.
        labels: (N,) int64, the class of each item. Models never see it; judges do.
        present: (N, M) bool, which modalities are given for which item. None: all of them.
        attributes: what else is known of each item, {name: (N,) int64}. Like labels, for judges.
        name, split, source: where the data come from, as given to ``load_dataset``.
        note: what exactly they were made of, in a sentence, for manifests and captions.
        distinct: how many leading items repeat no source image within a modality. Scores that look
            at nearest neighbours are blind beyond them. None: no item repeats one.

    Raises:
        ValueError: where a name, shape, dtype or length does not fit the modalities.
    """

    modalities: tuple[Modality, ...]
    observations: dict[str, Tensor]
    labels: Tensor
    present: Tensor = None  # type: ignore[assignment]
    attributes: dict[str, Tensor] = field(default_factory=dict)
    name: str = ""
    split: str = ""
    source: str = ""
    note: str = ""
    distinct: int | None = None
    _fingerprint: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.modalities = tuple(self.modalities)
        names = [modality.name for modality in self.modalities]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"modalities: expected distinct names, at least one, got {names}")
        if set(self.observations) != set(names):
            raise ValueError(
                f"observations: expected the names {names}, got {sorted(self.observations)}"
            )
        self.observations = {name: self.observations[name] for name in names}
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels: expected (N,) int64, got {tuple(self.labels.shape)} {self.labels.dtype}"
            )
        n = len(self.labels)
        for modality in self.modalities:
            x = self.observations[modality.name]
            dtype = DTYPES[modality.kind]
            if x.dtype != dtype or tuple(x.shape) != (n, *modality.shape):
                raise ValueError(
                    f"observations[{modality.name!r}]: expected {(n, *modality.shape)} {dtype}, "
                    f"got {tuple(x.shape)} {x.dtype}"
                )
        for name, known in self.attributes.items():
            if known.dtype != torch.int64 or tuple(known.shape) != (n,):
                raise ValueError(
                    f"attributes[{name!r}]: expected {(n,)} torch.int64, "
                    f"got {tuple(known.shape)} {known.dtype}"
                )
        if self.present is None:
            self.present = torch.ones(n, len(names), dtype=torch.bool, device=self.device)
        if self.present.dtype != torch.bool or tuple(self.present.shape) != (n, len(names)):
            raise ValueError(
                f"present: expected {(n, len(names))} bool, "
                f"got {tuple(self.present.shape)} {self.present.dtype}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the data live, and where batches come into being."""
        return self.labels.device

    @cached_property
    def complete(self) -> bool:
        """Whether every item has all modalities."""
        return bool(self.present.all())

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the content: modalities, observations, labels, ``present``, attributes.

        Name, split, source, note and device do not count: the same bytes have the same fingerprint.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for modality in self.modalities:
                own: tuple = (modality.name, modality.shape, modality.kind)
                own += (modality.vocabulary,) if modality.vocabulary else ()
                digest.update(repr(own).encode())
                digest.update(self.observations[modality.name].cpu().contiguous().numpy().data)
            digest.update(repr(tuple(self.present.shape)).encode())
            digest.update(self.labels.cpu().contiguous().numpy().data)
            digest.update(self.present.cpu().contiguous().numpy().data)
            for name, known in self.attributes.items():
                digest.update(name.encode())
                digest.update(known.cpu().contiguous().numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def to(self, device: torch.device | str) -> MultimodalDataset:
        """The same data on another device."""
        return replace(
            self,
            observations={name: x.to(device) for name, x in self.observations.items()},
            labels=self.labels.to(device),
            present=self.present.to(device),
            attributes={name: known.to(device) for name, known in self.attributes.items()},
        )

    def subset(self, indices: Tensor | Sequence[int] | slice) -> MultimodalDataset:
        """The items at ``indices`` (positions, a boolean mask or a slice), in that order."""
        at: Any = indices
        if not isinstance(indices, slice):
            at = torch.as_tensor(indices, device=self.device)
            at = at if at.dtype == torch.bool else at.long()
        labels = self.labels[at]
        return replace(
            self,
            observations={name: x[at] for name, x in self.observations.items()},
            labels=labels,
            present=self.present[at],
            attributes={name: known[at] for name, known in self.attributes.items()},
            distinct=None if self.distinct is None else self._distinct(at),
            _fingerprint=None,
        )

    def _distinct(self, at: Any) -> int:
        """How many leading items at those positions are among the first that repeat nothing."""
        positions = torch.arange(len(self), device=self.device)[at].tolist()
        taken: set[int] = set()
        for position in positions:
            if position >= (self.distinct or 0) or position in taken:
                break
            taken.add(position)
        return len(taken)

    def only(self, names: Sequence[str]) -> MultimodalDataset:
        """The same items, seen through the modalities of these names alone, in that order.

        Raises:
            ValueError: an unknown name.
        """
        known = [modality.name for modality in self.modalities]
        if not set(names) <= set(known):
            raise ValueError(f"names: {list(names)}, expected some of {known}")
        at = [known.index(name) for name in names]
        return replace(
            self,
            modalities=tuple(self.modalities[index] for index in at),
            observations={name: self.observations[name] for name in names},
            present=self.present[:, at],
            _fingerprint=None,
        )

    def with_missing(self, share: float, seed: int = 0) -> MultimodalDataset:
        """The same items with that share of all observations marked as not present.

        Each is left out independently; an item that would lose all keeps one at random.

        Raises:
            ValueError: a share that is not in [0, 1).
        """
        if not 0 <= share < 1:
            raise ValueError(f"share: {share}, expected at least 0 and below 1")
        draw = torch.Generator().manual_seed(seed)
        luck = torch.rand(self.present.shape, generator=draw).to(self.device)
        luck = torch.where(self.present, luck, -1.0)
        kept = (luck >= share) | (luck == luck.max(1, keepdim=True).values)
        return replace(self, present=kept & self.present, _fingerprint=None)

    def batch(self, indices: Tensor) -> dict[str, Any]:
        """The items at ``indices`` as a model's ``loss`` takes them.

        Args:
            indices: (B,) int64, on any device.

        Returns:
            ``{"x": {name: (B, *shape)}, "present": (B, M) bool}``, on the device where the data
            live; pixels are floats in [0, 1], token ids int64. Where no item of the data lacks a
            modality, ``present`` is None: models then need not look, which on a GPU means waiting.
        """
        at = indices.to(self.device)
        x = {name: _ready(seen[at]) for name, seen in self.observations.items()}
        return {"x": x, "present": None if self.complete else self.present[at]}

    def batches(self, batch_size: int) -> Iterator[dict[str, Any]]:
        """Every item once, in order, ``batch_size`` at a time; the last batch may be shorter."""
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            yield self.batch(torch.arange(start, stop, device=self.device))


def _ready(seen: Tensor) -> Tensor:
    return seen.float().div_(255) if seen.dtype == torch.uint8 else seen.long()
