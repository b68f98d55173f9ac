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
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .modalities import Modality

__all__ = ["Judge", "JudgeData", "Judges"]

FEATURES = 64  # width of the penultimate layer
SMALLEST_STD = 1e-4  # a feature that never varies on real data is not blown up
CHUNK = 1024  # items judged at once; bounds the memory of evaluation


def as_images(image: Tensor) -> Tensor:
    """Images as floats in [0, 1], (B, C, H, W); uint8 is divided by 255, floats pass through."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


class Judge(nn.Module):
    """A small convolutional classifier for one image modality.

    Three 3x3 convolutions, each with 2x2 max pooling and batch normalisation, then one linear
    layer whose normalised output is the feature.

    Args:
        modality: an image modality of shape (C, H, W), H and W at least 8.
        classes: number of classes.
        width: channels of the first convolution; the next ones have twice as many.
        shift: in training, images move by up to this many pixels in both directions.

    Raises:
        ValueError: the modality is no image, or too small.
    """

    def __init__(
        self, modality: Modality, classes: int = 10, *, width: int = 16, shift: int = 1
    ) -> None:
        super().__init__()
        if modality.kind != "image" or len(modality.shape) != 3:
            raise ValueError(
                f"modality {modality.name!r} is of kind {modality.kind!r} and shape "
                f"{modality.shape}; a judge expects an image of shape (C, H, W)"
            )
        channels, height, breadth = modality.shape
        if min(height, breadth) < 8:
            raise ValueError(f"modality {modality.name!r} is {height}x{breadth}; expected >= 8x8")
        self.modality, self.classes, self.width, self.shift = modality, classes, width, shift

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            return [convolution, nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.body = nn.Sequential(
            *block(channels, width),
            *block(width, 2 * width),
            *block(2 * width, 2 * width),
            nn.Flatten(),
            nn.Linear(2 * width * (height // 8) * (breadth // 8), FEATURES),
            nn.BatchNorm1d(FEATURES),
        )
        self.head = nn.Linear(FEATURES, classes)
        # twice as fast on a CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, image: Tensor) -> Tensor:
        """Penultimate features (B, 64) of images (B, C, H, W), before standardisation."""
        return self.body((as_images(image) - 0.5) * 4)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        return self.head(F.relu(self.features(image)))

    def loss(
        self,
        image: Tensor,
        label: Tensor,
        step: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Cross entropy in nats per item as `loss`, and the share of right labels as `accuracy`.

        Args:
            image: (B, C, H, W) in [0, 1], or uint8.
            label: (B,) int64.
            step: unused; every model that the training loop trains takes it.
            generator: draws the shifts; without one, images stay where they are.
        """
        image = as_images(image)
        if self.training and self.shift > 0 and generator is not None:
            image = random_shift(image, self.shift, generator)
        logits = self(image)
        accuracy = (logits.argmax(-1) == label).float().mean()
        return {"loss": F.cross_entropy(logits.float(), label), "accuracy": accuracy}


def random_shift(image: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Moves a batch (B, C, H, W) by one random offset of at most `most` pixels, edges repeated."""
    down, right = torch.randint(
        0, 2 * most + 1, (2,), generator=generator, device=generator.device
    ).tolist()
    height, breadth = image.shape[-2:]
    padded = F.pad(image, (most, most, most, most), mode="replicate")
    return padded[..., down : down + height, right : right + breadth]


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
        self.image = dataset.observations[name] if everything else dataset.observations[name][given]
        self.label = dataset.labels if everything else dataset.labels[given]

    def __len__(self) -> int:
        return len(self.label)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """{"image": (B, C, H, W) float in [0, 1], "label": (B,) int64}."""
        indices = indices.to(self.label.device)
        return {"image": as_images(self.image[indices]), "label": self.label[indices]}


class Judgement(NamedTuple):
    """What one judge says of B images: labels (B,) int64, standardised features (B, 64)."""

    labels: Tensor
    features: Tensor


class Judges(nn.Module):
    """The judges of all modalities, by name. Evaluates in chunks, in eval mode, without gradients.

    Every method takes images as floats in [0, 1] or as uint8, and any subset of the modalities.

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
        """Untrained judges, one for each modality; options go to `Judge`."""
        return cls({modality.name: Judge(modality, classes, **options) for modality in modalities})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.judges)

    def __getitem__(self, name: str) -> Judge:
        if name not in self.judges:
            raise KeyError(f"no judge for modality {name!r}; judges are {list(self.judges)}")
        return self.judges[name]  # type: ignore[return-value]

    def _chunks(self, judge: Judge, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and logits of chunks of images, on the judge's device."""
        device = judge.head.weight.device
        for chunk in images.split(CHUNK):
            features = judge.features(chunk.to(device)).float()
            yield features, judge.head(F.relu(features)).float()

    @torch.no_grad()
    def _evaluate(self, x: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        result = {}
        for name, images in x.items():
            judge = self[name]
            training = judge.training
            judge.eval()
            try:
                parts = list(self._chunks(judge, images))
            finally:
                judge.train(training)
            features, logits = zip(*parts, strict=True)
            result[name] = (torch.cat(features), torch.cat(logits).argmax(-1))
        return result

    def predict(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Labels {name: (B,) int64} of images {name: (B, C, H, W)}."""
        return {name: labels for name, (_, labels) in self._evaluate(x).items()}

    def features(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardised penultimate features {name: (B, 64)}; raises what `judge` raises."""
        return {name: found.features for name, found in self.judge(x).items()}

    def judge(self, x: Mapping[str, Tensor]) -> dict[str, Judgement]:
        """Labels and standardised features of images, in one pass.

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
            images = JudgeData(dataset, name).image
            features = self._evaluate({name: images})[name][0].double()
            self.get_buffer(f"mean_{name}").copy_(features.mean(0))
            self.get_buffer(f"std_{name}").copy_(features.std(0).clamp_min(SMALLEST_STD))
        self.get_buffer("has_statistics").fill_(True)

    def accuracy(self, dataset: Any) -> dict[str, float]:
        """Share of real items whose class each judge finds {name: accuracy}: the ceiling."""
        result = {}
        for name in self.names:
            data = JudgeData(dataset, name)
            predicted = self.predict({name: data.image})[name]
            result[name] = (predicted.to(data.label.device) == data.label).double().mean().item()
        return result

    def save(self, folder: str | Path) -> None:
        """Writes `judges.safetensors` and `judges.json` into a folder, made if absent."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        options = [
            {
                "name": name,
                "shape": list(self[name].modality.shape),
                "classes": self[name].classes,
                "width": self[name].width,
                "shift": self[name].shift,
            }
            for name in self.names
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
            modality = Modality(option["name"], tuple(option["shape"]))
            judges[modality.name] = Judge(
                modality, option["classes"], width=option["width"], shift=option["shift"]
            )
        result = cls(judges)
        result.load_state_dict(load_file(str(folder / "judges.safetensors")))
        return result.eval().requires_grad_(False)
