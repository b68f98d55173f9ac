"""The nets of judges: a small classifier of images and one of texts.

Each ends alike: a linear layer whose normalised output is the feature phi_m(x_m), and a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import Modality
from .text_nets import TextEncoder

FEATURES = 64  # width of the penultimate layer


def readable(x: Tensor) -> Tensor:
    """Images as floats in [0, 1]: uint8 is divided by 255; token ids as int64."""
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.is_floating_point() else x.long()


class Judge(nn.Module):
    """What judges of all kinds share; a subclass makes `body`, from an observation to its feature.

    Args:
        modality: what is judged.
        classes: number of classes.
        config: what else the subclass needs to be made again.
    """

    body: nn.Module

    def __init__(self, modality: Modality, classes: int, **config: Any) -> None:
        super().__init__()
        self.modality, self.classes, self.config = modality, classes, config
        self.head = nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (B, 64) of observations (B, *shape), before standardisation."""
        return self.body(readable(x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of observations (B, *shape)."""
        return self.head(F.relu(self.features(x)))

    def augmented(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Observations as they are trained on."""
        return x

    def loss(
        self,
        x: Tensor,
        label: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Cross entropy in nats per item as `loss`, and the share of right labels as `accuracy`.

        Args:
            x: (B, *shape): images in [0, 1] or uint8, or token ids.
            label: (B,) int64.
            generator: draws the augmentation; without one there is none.
        """
        x = readable(x)
        if self.training and generator is not None:
            x = self.augmented(x, generator)
        logits = self(x)
        accuracy = (logits.argmax(-1) == label).float().mean()
        return {"loss": F.cross_entropy(logits.float(), label), "accuracy": accuracy}


class ImageJudge(Judge):
    """A small convolutional classifier for one image modality.

    Three 3x3 convolutions, each with 2x2 max pooling and batch normalisation, then one linear
    layer.

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
        if modality.kind != "image":
            raise ValueError(
                f"modality {modality.name!r} is of kind {modality.kind!r} and shape "
                f"{modality.shape}; a judge of images expects one of shape (C, H, W)"
            )
        channels, height, breadth = modality.shape
        if min(height, breadth) < 8:
            raise ValueError(f"modality {modality.name!r} is {height}x{breadth}; expected >= 8x8")
        super().__init__(modality, classes, width=width, shift=shift)
        self.shift = shift

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
        # twice as fast on a CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (B, 64) of images (B, C, H, W), before standardisation."""
        return self.body((readable(x) - 0.5) * 4)

    def augmented(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Images moved by a few pixels."""
        return random_shift(x, self.shift, generator) if self.shift > 0 else x


class TextJudge(Judge):
    """A small convolutional classifier for one text modality.

    Args:
        modality: a text modality of shape (L,).
        classes: number of classes.
        width: channels, and numbers of a token's embedding.
    """

    def __init__(self, modality: Modality, classes: int = 10, *, width: int = 16) -> None:
        super().__init__(modality, classes, width=width)
        self.body = TextEncoder(modality, FEATURES, width)


def make_judge(modality: Modality, classes: int = 10, **options: Any) -> Judge:
    """An untrained judge of the kind of the modality; options are those of its class."""
    kind = TextJudge if modality.kind == "text" else ImageJudge
    return kind(modality, classes, **options)


def random_shift(image: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Moves a batch (B, C, H, W) by one random offset of at most `most` pixels, edges repeated."""
    offsets = torch.randint(0, 2 * most + 1, (2, 1), generator=generator, device=generator.device)
    height, breadth = image.shape[-2:]
    down = offsets[0].to(image.device) + torch.arange(height, device=image.device)
    right = offsets[1].to(image.device) + torch.arange(breadth, device=image.device)
    padded = F.pad(image, (most, most, most, most), mode="replicate")
    return padded.index_select(-2, down).index_select(-1, right)
