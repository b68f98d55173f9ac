"""How close a generated text is to the one that is wanted, and how texts are spread.

Padding before and after a text does not count, but where `token_accuracy` compares place by place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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


def offset_shares(offsets: Tensor, room: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """How often texts begin at each place, and how often they would at a uniformly random one.

    Args:
        offsets: (N,), blanks before each text.
        room: (N,), the largest offset that each text's length allows.
        places: how many places there are.

    Returns:
        Shares found and shares expected, each (places,).

    Raises:
        ValueError: an offset beyond its room.
    """
    if (offsets < 0).any() or (offsets > room).any():
        raise ValueError("offsets: some below 0 or beyond their room")
    at = torch.arange(places, device=offsets.device)
    found = (offsets[:, None] == at).double().mean(0)
    fits = (at <= room[:, None]).double()
    return found, (fits / fits.sum(1, keepdim=True)).mean(0)
