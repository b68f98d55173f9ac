"""Judges: one small classifier per modality, trained on real training data only, then frozen.

A judge f_m = head(phi_m(x_m)) says which class an observation of modality m shows. It serves
twice. Its argmax is the label that coherence compares. Its penultimate features phi_m(x_m),
standardised on real training data,

    phi'_m(x) = (phi_m(x) - mean_m) / std_m,

are the space in which Frechet distance, precision and recall are measured. The accuracy on real
test data is the ceiling of every coherence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .judge_nets import FEATURES, Judge, make_judge, readable
from .modalities import Modality

__all__ = ["Judge", "JudgeData", "Judges"]

SMALLEST_STD = 1e-4  # a feature that never varies on real data is not blown up
CHUNK = 1024  # items judged at once; bounds the memory of evaluation


class JudgeData:
    """One modality of a dataset with its labels, in the form the training loop reads.

    Items in which the modality is missing are left out.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        names = [modality.name for modality in dataset.modalities]
        if name not in names:
            raise ValueError(f"name is {name!r}; expected one of {names}")
        given = dataset.present[:, names.index(name)]
        everything = bool(given.all())  # the usual case, and no copy
        self.x = dataset.observations[name] if everything else dataset.observations[name][given]
        self.label = dataset.labels if everything else dataset.labels[given]

    def __len__(self) -> int:
        return len(self.label)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """{"x": (B, *shape) as a batch of the dataset has it, "label": (B,) int64}."""
        indices = indices.to(self.label.device)
        return {"x": readable(self.x[indices]), "label": self.label[indices]}


class Judgement(NamedTuple):
    """What one judge says of B observations: labels (B,) int64, standardised features (B, 64)."""

    labels: Tensor
    features: Tensor


class Judges(nn.Module):
    """The judges of all modalities, by name. Evaluates in chunks, in eval mode, without gradients.

    Every method takes images as floats in [0, 1] or as uint8, texts as token ids, and any subset of
    the modalities.

    Args:
        judges: {modality name: Judge}.
    """

    def __init__(self, judges: Mapping[str, Judge]) -> None:
        super().__init__()
        if not judges:
            raise ValueError("judges is empty; expected at least one modality")
        self.judges = nn.ModuleDict(judges)
        for name in judges:
            self.register_buffer(f"mean_{name}", torch.zeros(FEATURES))
            self.register_buffer(f"std_{name}", torch.ones(FEATURES))
        self.register_buffer("has_statistics", torch.tensor(False))

    @classmethod
    def for_modalities(
        cls, modalities: Sequence[Modality], classes: int = 10, **options: Any
    ) -> Judges:
        """Untrained judges, one for each modality; options go to `make_judge`."""
        return cls({m.name: make_judge(m, classes, **options) for m in modalities})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.judges)

    def __getitem__(self, name: str) -> Judge:
        if name not in self.judges:
            raise KeyError(f"no judge for modality {name!r}; judges are {list(self.judges)}")
        return self.judges[name]  # type: ignore[return-value]

    def _chunks(self, judge: Judge, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and logits of chunks of observations, on the judge's device."""
        device = judge.head.weight.device
        for chunk in x.split(CHUNK):
            features = judge.features(chunk.to(device)).float()
            yield features, judge.head(features.relu()).float()

    @torch.no_grad()
    def _evaluate(self, x: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        result = {}
        for name, seen in x.items():
            judge = self[name]
            training = judge.training
            judge.eval()
            try:
                parts = list(self._chunks(judge, seen))
            finally:
                judge.train(training)
            features, logits = zip(*parts, strict=True)
            result[name] = (torch.cat(features), torch.cat(logits).argmax(-1))
        return result

    def predict(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Labels {name: (B,) int64} of observations {name: (B, *shape)}."""
        return {name: labels for name, (_, labels) in self._evaluate(x).items()}

    def features(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardised penultimate features {name: (B, 64)}; raises what `judge` raises."""
        return {name: found.features for name, found in self.judge(x).items()}

    def judge(self, x: Mapping[str, Tensor]) -> dict[str, Judgement]:
        """Labels and standardised features of observations, in one pass.

        Raises:
            RuntimeError: `fit_feature_statistics` has not been called.
        """
        if not self.has_statistics:
            raise RuntimeError("features need statistics; call fit_feature_statistics(train) first")
        return {
            name: Judgement(
                labels,
                (features - self.get_buffer(f"mean_{name}")) / self.get_buffer(f"std_{name}"),
            )
            for name, (features, labels) in self._evaluate(x).items()
        }

    def fit_feature_statistics(self, dataset: Any) -> None:
        """Sets each modality's feature mean and standard deviation, from real training data."""
        for name in self.names:
            features = self._evaluate({name: JudgeData(dataset, name).x})[name][0].double()
            self.get_buffer(f"mean_{name}").copy_(features.mean(0))
            self.get_buffer(f"std_{name}").copy_(features.std(0).clamp_min(SMALLEST_STD))
        self.get_buffer("has_statistics").fill_(True)

    def accuracy(self, dataset: Any) -> dict[str, float]:
        """Share of real items whose class each judge finds {name: accuracy}: the ceiling."""
        result = {}
        for name in self.names:
            data = JudgeData(dataset, name)
            predicted = self.predict({name: data.x})[name]
            result[name] = (predicted.to(data.label.device) == data.label).double().mean().item()
        return result

    def save(self, folder: str | Path) -> None:
        """Writes `judges.safetensors` and `judges.json` into a folder, made if absent."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        options = [
            {"modality": asdict(judge.modality), "classes": judge.classes, **judge.config}
            for judge in map(self.__getitem__, self.names)
        ]
        state = {key: value.contiguous().cpu() for key, value in self.state_dict().items()}
        save_file(state, str(folder / "judges.safetensors"))
        (folder / "judges.json").write_text(json.dumps({"judges": options}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Judges:
        """Reads what `save` wrote; frozen and in eval mode.

        Raises:
            FileNotFoundError: the folder holds no judges.
        """
        folder = Path(folder)
        if not (folder / "judges.json").is_file():
            raise FileNotFoundError(f"no judges in {folder}; expected judges.json there")
        judges = {}
        for option in json.loads((folder / "judges.json").read_text())["judges"]:
            modality = Modality.from_config(option.pop("modality"))
            judges[modality.name] = make_judge(modality, **option)
        result = cls(judges)
        result.load_state_dict(load_file(str(folder / "judges.safetensors")))
        return result.eval().requires_grad_(False)
