"""How close a generated text is to the one that is wanted, and how texts are spread.

Padding before and after a text does not count, but where `token_accuracy` compares place by place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .agreement import total_variation


def word_match(texts: Sequence[str], expected: Sequence[str]) -> float:
    """Share of texts that are the expected ones, letter for letter, but for blanks around them.

    Raises:
        ValueError: none, or another number of them.
    """
    if not texts or len(texts) != len(expected):
        raise ValueError(
            f"texts, expected: {len(texts)}, {len(expected)}, expected as many of both"
        )
    return sum(a.strip() == b.strip() for a, b in zip(texts, expected)) / len(texts)


def token_accuracy(ids: Tensor, expected: Tensor) -> float:
    """Share of positions of ids (N, L) that hold the expected token, padding left out.

    A position counts where the expected text has a token. To guess the commonest token everywhere
    is worth something, so compare with a reference.

    Raises:
        ValueError: another shape, or padding alone.
    """
    if ids.shape != expected.shape:
        raise ValueError(f"ids: {tuple(ids.shape)}, expected {tuple(expected.shape)}")
    counted = expected != 0
    if not counted.any():
        raise ValueError(f"expected: {tuple(expected.shape)} of padding alone, expected tokens")
    return (ids == expected)[counted].double().mean().item()


def offset_distance(offsets: Tensor, room: Tensor) -> float:
    """Total variation between the places where texts begin and those drawn uniformly.

    Args:
        offsets: (N,), blanks before each text.
        room: (N,), the largest offset that each text's length allows.

    Returns:
        0 where every offset that fits is as frequent as the others; 1 where there are no texts.

    Raises:
        ValueError: an offset beyond its room.
    """
    if (offsets < 0).any() or (offsets > room).any():
        raise ValueError("offsets: some below 0 or beyond their room")
    if not len(offsets):
        return 1.0
    at = torch.arange(int(room.max()) + 1, device=offsets.device)
    found = (offsets[:, None] == at).double().mean(0)
    fits = (at <= room[:, None]).double()
    return total_variation(found, (fits / fits.sum(1, keepdim=True)).mean(0)).item()
