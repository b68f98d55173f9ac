"""What of an item is observed: the masks `present`, (B, M) bool, and the checks of what is given.

Every model takes observations {name: (B, *shape)} of any modalities and a mask that says which of
them each item has. What is not present is set to 0 here, once, so that whatever stood in its place,
even numbers that are none, can reach nothing further down.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from shala_lite.modalities import Modality

MOST_MODALITIES = 20  # beyond it a list of all subsets does not fit


def check_names(argument: str, given: dict[str, Tensor], names: Sequence[str]) -> None:
    """Raise KeyError where `given` has a name that is not in `names`, ValueError if it has none."""
    if not given:
        raise ValueError(f"{argument}: empty, expected at least one modality")
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise KeyError(f"{argument}: unknown modalities {unknown}, expected among {list(names)}")


def check_present(
    given: dict[str, Tensor], present: Tensor | None, names: Sequence[str]
) -> Tensor | None:
    """The modalities that each item has, (B, M) bool; None if every item has all M.

    Args:
        given: {name: (B, ...)} of some modalities; the others are present for no item.
        present: (B, M) bool, in the order of `names`; None means all that is in `given`.
        names: all M modalities.

    Raises:
        ValueError: another shape or dtype, or an item with nothing present.
    """
    some = next(iter(given.values()))
    if present is None and len(given) == len(names):
        return None
    here = torch.tensor([name in given for name in names], device=some.device)
    if present is None:
        return here.expand(len(some), -1)
    expected = (len(some), len(names))
    if present.dtype != torch.bool or tuple(present.shape) != expected:
        raise ValueError(
            f"present: shape {tuple(present.shape)} and dtype {present.dtype}, "
            f"expected {expected} and bool"
        )
    present = present.to(some.device) & here
    if present.all():
        return None
    nothing = (~present.any(1)).nonzero()[:, 0].tolist()
    if nothing:
        raise ValueError(
            f"present: nothing is present for items {nothing[:5]} ({len(nothing)} in all), "
            f"expected at least one of {list(given)} each"
        )
    return present


def stack_features(
    features: dict[str, Tensor], present: Tensor | None, names: Sequence[str], width: int
) -> tuple[Tensor, Tensor | None]:
    """Features (B, M, D) in the order of `names`, 0 where absent, and what is there.

    The mask is (B, M) bool, or None where every item has all M.

    Args:
        features: {name: (B, D)} of any non-empty subset of the modalities.
        present: as in `check_present`.
        names: all M modalities.
        width: D.

    Raises:
        KeyError: an unknown modality.
        ValueError: no features, another shape, or an item with nothing present.
    """
    check_names("features", features, names)
    some = next(iter(features.values()))
    for name, h in features.items():
        if tuple(h.shape) != (len(some), width):
            raise ValueError(
                f"features[{name!r}]: shape {tuple(h.shape)}, expected {(len(some), width)}"
            )
    present = check_present(features, present, names)
    return stacked(features, present, names), present


def stacked(features: dict[str, Tensor], present: Tensor | None, names: Sequence[str]) -> Tensor:
    """As `stack_features`, of what needs no check: features (B, M, D) alone."""
    blank = torch.zeros_like(next(iter(features.values())))
    every = torch.stack([features.get(name, blank) for name in names], dim=1)
    return every if present is None else torch.where(present[..., None], every, 0)


def check_observations(
    modalities: Sequence[Modality],
    x: dict[str, Tensor],
    present: Tensor | None,
    *,
    finite: bool = True,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Observations in the order of the modalities, what is not present set to 0, and the mask.

    Args:
        modalities: all M modalities.
        x: {name: (B, *shape)} of any non-empty subset: images floating point, texts token ids.
        present: (B, M) bool, or None for all that is in `x`.
        finite: whether to look for NaN, infinity and ids out of range; on a GPU this waits for the
            device.

    Returns:
        The observations, and `present` as `check_present` gives it.

    Raises:
        KeyError: a modality that is not among `modalities`.
        ValueError: nothing in `x` or in its batch, another shape or dtype, an item with nothing
            present, or where it is present a number that is NaN or infinite, or an id of no token.
    """
    check_names("x", x, [m.name for m in modalities])
    known = [m for m in modalities if m.name in x]
    size = len(x[known[0].name]) if x[known[0].name].ndim else 0
    for modality in known:
        seen = x[modality.name]
        if tuple(seen.shape) != (size, *modality.shape) or not size:
            shape = ", ".join(map(str, modality.shape))
            raise ValueError(
                f"x[{modality.name!r}]: shape {tuple(seen.shape)}, expected (B, {shape}) "
                f"with one B of at least 1 for all modalities"
            )
        image = modality.kind == "image"
        if image != seen.is_floating_point() or seen.dtype == torch.bool:
            expected = "floating point in [0, 1]" if image else "token ids in int64"
            raise ValueError(f"x[{modality.name!r}]: dtype {seen.dtype}, expected {expected}")
    x = {m.name: x[m.name] for m in known}
    names = [m.name for m in modalities]
    present = check_present(x, present, names)
    if present is not None:
        for name, seen in x.items():
            has = present[:, names.index(name)].view(-1, *[1] * (seen.ndim - 1))
            x[name] = torch.where(has, seen, 0)
    if finite:
        for modality in known:
            _check_numbers(modality, x[modality.name])
    return x, present


def _check_numbers(modality: Modality, seen: Tensor) -> None:
    """Raise ValueError where an image is not finite, or a text has an id that is no token."""
    if modality.vocabulary is None:
        bad = ~seen.flatten(1).sum(1).isfinite()
        problem, expected = "NaN or infinite", "numbers in [0, 1]"
    else:
        bad = ((seen < 0) | (seen >= len(modality.vocabulary))).any(1)
        problem, expected = "an id of no token", f"ids from 0 to {len(modality.vocabulary) - 1}"
    if bad.any():
        raise ValueError(
            f"x[{modality.name!r}]: {problem} in {int(bad.sum())} of {len(seen)} items, first "
            f"{int(bad.nonzero()[0])}, expected {expected}"
        )


def draw_subsets(
    present: Tensor, none: float, one: float, generator: torch.Generator | None = None
) -> Tensor:
    """For every item a random subset of what is present, (B, M) bool.

    With probability `none` nothing, with probability `one` a single modality, else a subset whose
    size is uniform from 1 to the number present.
    """
    device = generator.device if generator is not None else present.device
    batch, count = present.shape
    order = torch.rand(batch, count, generator=generator, device=device).to(present.device)
    kind, size = torch.rand(2, batch, generator=generator, device=device).to(present.device)
    available = present.sum(1)
    # rank of each modality in a random order in which the absent come last
    rank = torch.where(present, order, order + 1).argsort(1).argsort(1)
    wanted = (size * available).long() + 1
    wanted = torch.where(kind < none + one, torch.ones_like(wanted), wanted)
    wanted = torch.where(kind < none, torch.zeros_like(wanted), wanted)
    return (rank < wanted[:, None]) & present


def all_subsets(modalities: int) -> Tensor:
    """Every non-empty subset of M modalities, (2^M - 1, M) bool, small ones first.

    Raises:
        ValueError: more modalities than `MOST_MODALITIES`.
    """
    if not 1 <= modalities <= MOST_MODALITIES:
        raise ValueError(
            f"modalities: {modalities}, expected 1 to {MOST_MODALITIES}: "
            "there are 2^M - 1 subsets of M"
        )
    rows = [
        [index in chosen for index in range(modalities)]
        for size in range(1, modalities + 1)
        for chosen in combinations(range(modalities), size)
    ]
    return torch.tensor(rows)
