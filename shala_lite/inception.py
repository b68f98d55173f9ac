"""FID: the Frechet distance of Inception features, where the user supplies the network.

    images -> bytes, as a PNG file would hold them -> 2048 pool features -> Frechet distance

The network is `inception-2015-12-05.pt`, the TorchScript file of NVIDIA's StyleGAN2-ADA, a
translation of the TensorFlow network that FID is defined by. It is no part of this package:
`SHALA_INCEPTION` names a copy. Its interface, as `metrics/metric_utils.py` there calls it:

    net(images, return_features=True) -> (B, 2048)      images (B, 3, H, W) uint8, RGB

It resizes to 299x299 by itself, as the original does: images must come as they are.

Source: Heusel et al. 2017.
"""

import os
import warnings
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from shala_lite.datasets import MultimodalDataset
from shala_lite.manifolds import frechet_distance
from shala_lite.vae import MultimodalVAE

VARIABLE = "SHALA_INCEPTION"
FILE = "inception-2015-12-05.pt"
FEATURES = 2048
CHUNK = 64  # images that the network sees at once
DECODED = 1000  # latents decoded at once


def load(path: str | Path | None = None) -> torch.jit.ScriptModule | None:
    """The network, on the CPU; None if neither `path` nor the variable `SHALA_INCEPTION` names it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TorchScript, or its forward lacks `return_features`.
    """
    named = path or os.environ.get(VARIABLE)
    if not named:
        return None
    file = Path(named).expanduser()
    what = f"{'path' if path else VARIABLE} is {str(named)!r}"
    if not file.is_file():
        raise FileNotFoundError(f"{what}, no file; expected a copy of {FILE}")
    try:
        net = torch.jit.load(str(file), map_location="cpu")
    except RuntimeError as error:
        raise ValueError(f"{what}, not TorchScript; expected a copy of {FILE}") from error
    schema = getattr(getattr(net, "forward", None), "schema", None)
    arguments = [argument.name for argument in schema.arguments] if schema else []
    if "return_features" not in arguments:
        raise ValueError(
            f"{what}, whose forward takes {arguments}; expected return_features, as in {FILE}"
        )
    return net.eval()


def _as_saved(images: Tensor) -> Tensor:
    """What a PNG file would hold, (B, 3, H, W) uint8; see `features` for arguments and errors."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise ValueError(
            f"images have shape {tuple(images.shape)}; expected (B, C, H, W), B > 0, C 1 or 3"
        )
    if images.is_floating_point():
        if images.isnan().any():
            raise ValueError("images hold NaN; expected floats in [0, 1]")
        levels = (images.float() * 255).round()
        if levels.min() < 0 or levels.max() > 255:
            low, high = images.min().item(), images.max().item()
            raise ValueError(f"images span {low:g} to {high:g}; expected floats in [0, 1]")
        images = levels.to(torch.uint8)
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}; expected floats in [0, 1], or uint8")
    return images.expand(-1, 3, -1, -1)


@torch.no_grad()
def features(net: torch.jit.ScriptModule, images: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Inception features (B, 2048), float64 on the CPU, computed on the device of the network.

    Args:
        net: what `load` gave.
        images: (B, C, H, W), floats in [0, 1] or uint8. Floats are rounded to bytes. A single
            channel is repeated to three.
        chunk: images at once.

    Raises:
        ValueError: another shape, number of channels, dtype or range, NaN, a chunk below 1, or a
            network that gives another shape.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected at least 1")
    weight = next(chain(net.parameters(), net.buffers()), None)
    device = torch.device("cpu") if weight is None else weight.device
    found = []
    for part in _as_saved(images).split(chunk):
        some = net(part.to(device), return_features=True)
        shape = tuple(some.shape) if isinstance(some, Tensor) else type(some).__name__
        if shape != (len(part), FEATURES):
            raise ValueError(
                f"net gives {shape} with return_features; expected {(len(part), FEATURES)}, "
                f"as {FILE} does"
            )
        found.append(some.cpu().double())
    return torch.cat(found)


def fid(real: Tensor, fake: Tensor) -> float:
    """FID of Inception features (N, D) and (N', D), in squared Inception units.

        |mean - mean'|^2 + tr(C) + tr(C') - 2 tr((C C')^1/2)

    C and C' are sample covariances with N - 1 below, as in Heusel et al. 2017 and pytorch-fid;
    StyleGAN has N, which makes a difference of one part in N. No feature is rescaled.

    FID is biased upwards, the more the smaller N is: compare at equal N only, and state N. Up to
    D items the covariance is singular and the bias large, which a warning says.

    Raises:
        ValueError: fewer than two items, different widths, or features that are not finite.
    """
    found = frechet_distance(real, fake)
    _warn_if_few([len(real), len(fake)], real.shape[1])
    return found


def _warn_if_few(counts: Iterable[int], width: int) -> None:
    fewest = min(counts)
    if fewest <= width:
        warnings.warn(
            f"FID of {fewest} items is biased far upwards: expected more than {width}, the number "
            "of features. Compare it at this number of items only",
            stacklevel=3,
        )


def scores(
    vae: MultimodalVAE,
    latents: Mapping[str, Tensor],
    reference: MultimodalDataset,
    path: str | Path | None = None,
    *,
    train: MultimodalDataset | None = None,
) -> dict[str, float]:
    """FID of decoded latents against real sets, per image modality and as their mean.

    Each distance has as many decoded images as real ones: the first of either, as many as the
    shorter side has. Real images that are not `present` are left out. Warns once if some distance
    has too few, as `fid` does.

    Args:
        vae: decodes; the network goes to its device.
        latents: {variant: (N, Z)}, in the decoder's units.
        reference: real sets that have the modalities of `vae`, the test split as a rule.
        path: of the network; None: what `SHALA_INCEPTION` names.
        train: real training sets; with them, `floor` is their distance from the reference.

    Returns:
        {"variant/fid": mean, "variant/fid@m0": ..., ...}; {} where no network is named.

    Raises:
        ValueError: a modality that `reference` lacks, fewer than two items, or what `features`
            raises. And what `load` raises.
    """
    net = load(path)
    names = [modality.name for modality in vae.modalities if modality.kind == "image"]
    if net is None or not latents or not names:
        return {}
    net = net.to(next(vae.parameters()).device)
    lengths = [len(z) for z in latents.values()]
    real = {name: features(net, _present(reference, name)[: max(lengths)]) for name in names}
    counts = [len(some) for some in real.values()]
    _warn_if_few([*lengths, *counts], FEATURES)
    found: dict[str, float] = {}
    for variant, z in latents.items():
        images = _decode(vae, z[: max(counts)], names)
        for name in names:
            count = min(len(real[name]), len(images[name]))
            fake = features(net, images[name][:count])
            found[f"{variant}/fid@{name}"] = frechet_distance(real[name][:count], fake)
        found[f"{variant}/fid"] = sum(found[f"{variant}/fid@{n}"] for n in names) / len(names)
    if train is not None:
        for name in names:
            other = features(net, _present(train, name)[: len(real[name])])
            found[f"floor/fid@{name}"] = frechet_distance(real[name][: len(other)], other)
        found["floor/fid"] = sum(found[f"floor/fid@{n}"] for n in names) / len(names)
    return found


def _present(data: MultimodalDataset, name: str) -> Tensor:
    """The images of one modality that are there, (N, C, H, W) uint8."""
    names = [modality.name for modality in data.modalities]
    if name not in names:
        raise ValueError(f"reference has modalities {names}; expected {name!r} among them")
    return data.observations[name][data.present[:, names.index(name)]]


@torch.no_grad()
def _decode(vae: MultimodalVAE, z: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Decoded images as bytes on the CPU, {name: (N, 3, H, W) uint8}, in evaluation mode."""
    device, training = next(vae.parameters()).device, vae.training
    vae.eval()
    try:
        parts = []
        for chunk in z.split(DECODED):
            x = vae.decode(chunk.to(device))
            parts.append({name: _as_saved(x[name]).cpu() for name in names})
    finally:
        vae.train(training)
    return {name: torch.cat([part[name] for part in parts]) for name in names}
