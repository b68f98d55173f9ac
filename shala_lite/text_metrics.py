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


def offset_distance(offsets: Tensor, room: Tensor, kinds: Tensor) -> float:
    """Total variation between the places where texts begin and a uniform one, mean over kinds.

    Texts of different kinds are not pooled: one fixed place for each would then look spread.

    Args:
        offsets: (N,), blanks before each text.
        room: (N,), the largest offset that each text's length allows.
        kinds: (N,), integers; texts of a kind are the same but for their place.

    Returns:
        0 where every offset that fits is as frequent as the others; 1 where there are no texts.
        A kind without texts does not count.

    Raises:
        ValueError: an offset beyond its room, lengths that differ.
    """
    if not offsets.shape == room.shape == kinds.shape:
        shapes = [tuple(x.shape) for x in (offsets, room, kinds)]
        raise ValueError(f"offsets, room, kinds have shapes {shapes}; expected one shape (N,)")
    if (offsets < 0).any() or (offsets > room).any():
        raise ValueError("offsets: some below 0 or beyond their room")
    if not len(offsets):
        return 1.0
    at, distances = torch.arange(int(room.max()) + 1, device=offsets.device), []
    for kind in kinds.unique():
        here = kinds == kind
        found = (offsets[here, None] == at).double().mean(0)
        fits = (at <= room[here, None]).double()
        expected = (fits / fits.sum(1, keepdim=True)).mean(0)
        distances.append(total_variation(found, expected).item())
    return sum(distances) / len(distances)
