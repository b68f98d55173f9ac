r"""What depends on the kind of a modality: its nets and its likelihood.

image   log p(x | z) = sum over pixels of log Laplace(x; mean(z), b)                    [nats]
text    log p(x | z) = sum over positions of log softmax(logits(z, x before))[x]        [nats]
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite.distributions import categorical_log_likelihood, laplace_log_likelihood
from shala_lite.modalities import Modality
from shala_lite.nets import ImageDecoder, ImageEncoder, LayeredDecoder
from shala_lite.text_nets import TextDecoder, TextEncoder

DECODERS = ("convolutional", "layered")  # of images
# A modality's name, what its decoder says, and of which rows of z, None for all.
Said = tuple[str, Tensor, Tensor | None]


def make_encoder(modality: Modality, config: dict[str, Any]) -> nn.Module:
    """A new encoder from x_m to h_m, of the sizes in a model's `config`."""
    if modality.kind == "text":
        return TextEncoder(modality, config["feature_dim"], config["text_width"])
    return ImageEncoder(modality, config["feature_dim"], config["widths"], config["residual"])


def make_decoder(modality: Modality, inputs: int, config: dict[str, Any]) -> nn.Module:
    """A new decoder from `inputs` numbers of z, of the kind and sizes in a model's `config`."""
    if modality.kind == "text":
        return TextDecoder(modality, inputs, config["text_width"])
    if config["decoder"] == "layered":
        hidden, sharpness = config["decoder_hidden"], config["mask_sharpness"]
        count, stride = config["decoder_layers"], config["decoder_stride"]
        return LayeredDecoder(modality, inputs, hidden, count, stride, sharpness)
    return ImageDecoder(modality, inputs, config["widths"], config["residual"])


def check_weights(
    weights: Mapping[str, float] | Iterable[tuple[str, float]], names: Sequence[str]
) -> dict[str, float]:
    """Weights of likelihoods by modality, given as a dictionary or as pairs.

    Raises:
        ValueError: a negative one, or one of no modality in `names`.
    """
    found = dict(weights)
    odd = sorted(set(found) - set(names))
    if odd or min(found.values(), default=1.0) < 0:
        raise ValueError(
            f"likelihood_weights: {found}, expected numbers of at least 0 by the names "
            f"{list(names)}" + (f", not {odd}" if odd else "")
        )
    return found


def prepared(modality: Modality, x: Tensor) -> Tensor:
    """Observations (B, *shape) as nets and likelihood read them: autocast lowers what it can."""
    return x.long() if modality.kind == "text" else x.float()


def log_likelihood(modality: Modality, x: Tensor, decoded: Tensor, scale: float) -> Tensor:
    """log p(x_m | z) in nats, shape (B,).

    Args:
        modality: m.
        x: (B, *shape).
        decoded: what its decoder says.
        scale: Laplace scale b of images, in pixel units.
    """
    x = prepared(modality, x)
    if modality.kind == "text":
        return categorical_log_likelihood(x, decoded)
    return laplace_log_likelihood(x, decoded, scale)


def log_likelihoods(
    modalities: Sequence[Modality],
    x: Mapping[str, Tensor],
    said: Iterable[Said],
    like: Tensor,
    scale: float,
) -> dict[str, Tensor]:
    """log p(x_m | z) in nats of every modality, {name: (..., B)}, 0 for rows of which none spoke.

    Args:
        modalities: those in `x`.
        x: {name: (B, *shape)}.
        said: of several draws for each item, one draw of all items after another.
        like: (..., B), of the shape that is wanted.
        scale: Laplace scale b of images, in pixel units.
    """
    named, batch = {m.name: m for m in modalities}, like.shape[-1]
    found = {name: like.new_zeros(like.numel()) for name in named}
    for name, decoded, rows in said:
        if rows is None:  # draw by draw, since pixels need not be repeated
            pairs = [(x[name], draw) for draw in decoded.unflatten(0, (-1, batch))]
        else:
            pairs = [(x[name][rows % batch], decoded)]
        nats = torch.cat([log_likelihood(named[name], *pair, scale) for pair in pairs])
        found[name] = nats if rows is None else found[name].index_copy(0, rows, nats)
    return {name: nats.view(like.shape) for name, nats in found.items()}
