"""Encoders and decoders of one modality.

An image of any size is halved by strided convolutions on the way in. There are three ways out:
convolutions with pixel shuffle (about twice as fast on a CPU as transposed ones, and without their
checkerboard; Shi et al. 2016); or linear layers, which on small images learn more a second on a
CPU, and which paint two pictures and a mask between them, or a few colours and where each is. Every
hidden layer is normalised.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from shala_lite.modalities import Modality


def _no_image(modality: Modality) -> str:
    return (
        f"modality {modality.name!r}: kind {modality.kind!r} with shape {modality.shape}, "
        "expected kind 'image' with shape (channels, height, width)"
    )


def _image_shape(modality: Modality, widths: Sequence[int]) -> tuple[int, int, int]:
    if modality.kind != "image" or len(modality.shape) != 3:
        raise ValueError(_no_image(modality))
    channels, height, width = modality.shape
    if len(widths) < 2:
        raise ValueError(f"widths: {list(widths)}, expected at least two")
    if min(height, width) < 2 ** len(widths):
        raise ValueError(
            f"widths: {len(widths)} halvings, too many for modality {modality.name!r} "
            f"of shape {modality.shape}"
        )
    return channels, height, width


def _check_painter(modality: Modality, sharpness: float) -> None:
    if modality.kind != "image" or len(modality.shape) != 3:
        raise ValueError(_no_image(modality))
    if sharpness <= 0:
        raise ValueError(f"sharpness: {sharpness}, expected a positive number")


def linear_layers(inputs: int, outputs: int, depth: int, hidden: int) -> nn.Sequential:
    """`depth` linear layers, `hidden` wide, with normalisation and SiLU between them."""
    if depth < 1:
        raise ValueError(f"depth: {depth}, expected at least 1")
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.SiLU()]
        inputs = hidden
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


@contextmanager
def enough_rows(net: nn.Module, rows: Tensor) -> Iterator[None]:
    """One row alone has no batch statistics; for it, a net in training uses its running ones."""
    if not net.training or len(rows) > 1:
        yield
        return
    net.eval()
    try:
        yield
    finally:
        net.train()


def apply_to_few(net: nn.Module, rows: Tensor, *others: Tensor) -> Tensor:
    """`net(rows, *others)`, however few the rows are: see `enough_rows`."""
    with enough_rows(net, rows):
        return net(rows, *others)


class Residual(nn.Module):
    """x + f(x), with f two normalised 3x3 convolutions at constant width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x + self.body(x))


class ImageEncoder(nn.Module):
    """Image (B, C, H, W) in [0, 1] to a deterministic feature h of shape (B, D).

    Args:
        modality: of kind `image`.
        feature_dim: D.
        widths: channels after each halving of the resolution, at least two.
        residual: residual blocks at each resolution.
    """

    def __init__(
        self, modality: Modality, feature_dim: int, widths: Sequence[int], residual: int = 0
    ) -> None:
        super().__init__()
        channels, height, width = _image_shape(modality, widths)
        layers: list[nn.Module] = []
        for out in widths:
            layers += [
                nn.Conv2d(channels, out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.SiLU(),
                *(Residual(out) for _ in range(residual)),
            ]
            channels, height, width = out, height // 2, width // 2
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(channels * height * width, feature_dim), nn.BatchNorm1d(feature_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolutions(x * 2 - 1).flatten(1))


class ImageDecoder(nn.Module):
    """Latent z of shape (B, Z) to the mean image (B, C, H, W) in [0, 1].

    Args:
        modality: of kind `image`.
        latent_dim: Z.
        widths: channels, from the finest resolution to the coarsest, as in the encoder.
        residual: residual blocks at each resolution.
    """

    def __init__(
        self, modality: Modality, latent_dim: int, widths: Sequence[int], residual: int = 0
    ) -> None:
        super().__init__()
        channels, height, width = _image_shape(modality, widths)
        doublings = len(widths) - 1
        self.size = (height, width)
        self.start = (
            widths[-1],
            math.ceil(height / 2**doublings),
            math.ceil(width / 2**doublings),
        )
        self.head = nn.Sequential(
            nn.Linear(latent_dim, math.prod(self.start), bias=False),
            nn.BatchNorm1d(math.prod(self.start)),
            nn.SiLU(),
        )
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths[::-1]):
            layers += [
                *(Residual(wide) for _ in range(residual)),
                nn.Conv2d(wide, 4 * narrow, 3, padding=1, bias=False),
                nn.PixelShuffle(2),
                nn.BatchNorm2d(narrow),
                nn.SiLU(),
            ]
        # one nonlinearity at full resolution before the last convolution: without it, digits blur
        layers.append(nn.Conv2d(widths[0], channels, 3, padding=1))
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.head(z).unflatten(1, self.start)
        image = self.convolutions(hidden)[..., : self.size[0], : self.size[1]]
        return torch.sigmoid(image.float())


class LayeredDecoder(nn.Module):
    r"""Latent z of shape (B, Z) to the mean image (B, C, H, W): pictures, and where each is seen.

        x = sum_k m_k a_k,     pictures a_k (B, C, H, W),     masks m = softmax over k of s u_k

    What a layer shows can be smooth, and the masks alone have to be sharp (layered image models:
    Wang and Adelson 1994). So a picture may be coarse: `stride` 4 asks for one colour in 4 x 4
    pixels, with straight lines between, and a colour is learned at fewer places. Masks (B, K, H, W)
    have every pixel; u of the last layer is 0. All come from linear layers: on small images a step
    takes a fraction of the time that convolutions take.

    In training s = 1. A likelihood of pixels rewards a mask that is soft wherever it is unsure,
    though each pixel belongs to one layer. In evaluation s is `sharpness`: a mask of lower
    temperature, as of a relaxed binary variable (Maddison et al. 2017). Above 1, likelihood falls.

    Args:
        modality: of kind `image`.
        latent_dim: Z.
        hidden: width of the two hidden layers.
        count: K, at least two.
        stride: pixels from one colour of a picture to the next, 1 for a colour in each pixel.
        sharpness: s in evaluation, positive.
    """

    rows: Tensor  # (H, rows of a picture), how much of each a row of the image has
    columns: Tensor

    def __init__(
        self,
        modality: Modality,
        latent_dim: int,
        hidden: int,
        count: int = 2,
        stride: int = 1,
        sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        _check_painter(modality, sharpness)
        if count < 2:
            raise ValueError(f"count: {count}, expected at least two layers")
        if stride < 1:
            raise ValueError(f"stride: {stride}, expected at least one pixel")
        channels, *self.size = modality.shape
        self.coarse = [math.ceil(pixels / stride) for pixels in self.size]
        self.count, self.sharpness = count, sharpness
        for name, few, many in zip(("rows", "columns"), self.coarse, self.size, strict=True):
            lines = nn.functional.interpolate(torch.eye(few)[None], many, mode="linear")[0].T
            self.register_buffer(name, lines, persistent=False)
        self.parts = ((count - 1) * math.prod(self.size), count * channels * math.prod(self.coarse))
        self.layers = linear_layers(latent_dim, sum(self.parts), depth=3, hidden=hidden)

    def shown(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (B, K, 1, H, W) that sum to one, and pictures (B, K, C, H, W) in [0, 1]."""
        masks, pictures = self.layers(z).float().split(self.parts, dim=1)
        masks = nn.functional.pad(masks.unflatten(1, (-1, *self.size)), (0, 0, 0, 0, 0, 1))
        masks = (masks if self.training else self.sharpness * masks).softmax(1)
        pictures = pictures.unflatten(1, (self.count, -1, *self.coarse))
        if self.coarse != self.size:
            with torch.autocast(z.device.type, enabled=False):  # products of matrices, yet pixels
                pictures = self.rows @ pictures @ self.columns.mT
        return masks.unsqueeze(2), pictures.sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        masks, pictures = self.shown(z)
        return (masks * pictures).sum(1)
