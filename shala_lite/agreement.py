r"""One condition, many answers: do they agree among views, and do they vary as the data do?

A condition leaves something open: handwriting, background, the colour of a frame. A model that
always gives the same answer agrees with itself. So two things are measured side by side: whether
the views of one sample agree, and whether samples of one condition differ as much as real items
of that condition do.

    spread     = mean over conditions and pairs k < l of |phi(x_k) - phi(x_l)|
    distance   = 1/2 sum_c | p_c - q_c |                                    (total variation)

phi are the features of a judge; p and q are shares of the values of an attribute.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from shala_lite import metrics


class Variation(NamedTuple):
    """Mean total variation distance over conditions, and the same for draws from the data."""

    distance: float
    floor: float


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the sum of |p_c - q_c|, of shares (..., C): 0 for equal ones, 1 for disjoint ones."""
    if p.shape[-1:] != q.shape[-1:]:
        raise ValueError(f"p, q: {tuple(p.shape)}, {tuple(q.shape)}; expected as many values")
    return (p - q).abs().sum(-1) / 2


def shares(values: Tensor, classes: int) -> Tensor:
    """Share of each value among the last dimension of values (..., K) int64, as (..., classes)."""
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
        raise ValueError(f"values: {int(values.min())} to {int(values.max())}, of {classes}")
    return torch.nn.functional.one_hot(values, classes).double().mean(-2)


def spread(features: Mapping[str, Tensor], counted: Mapping[str, Tensor] | None = None) -> float:
    """Mean distance between two samples of one condition, mean over pairs and modalities.

    Args:
        features: {name: (C, K, D)}, K samples of each of C conditions.
        counted: {name: (C, K) bool}; only pairs of which both count are averaged. Where a sample
            shows another class than asked, its distance is a mistake and not variety.

    Raises:
        ValueError: another shape, fewer than two samples, or a modality in which no pair counts.
    """
    found = []
    for name, phi in features.items():
        if phi.ndim != 3 or phi.shape[1] < 2:
            raise ValueError(f"features[{name!r}]: {tuple(phi.shape)}, expected (C, K, D), K > 1")
        one, other = torch.triu_indices(phi.shape[1], phi.shape[1], offset=1, device=phi.device)
        distance = (phi[:, one].double() - phi[:, other].double()).norm(dim=-1)  # (C, pairs)
        if counted is not None:
            both = counted[name][:, one] & counted[name][:, other]
            if not both.any():
                raise ValueError(f"counted[{name!r}]: no pair of samples, expected at least one")
            distance = distance[both.to(distance.device)]
        found.append(distance.mean())
    return torch.stack(found).mean().item()


def real_groups(labels: Tensor, asked: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """For each class asked for (C,), `size` different positions of that class in `labels`, (C, K).

    Raises:
        ValueError: a class with fewer than `size` items.
    """
    groups = []
    for label in asked.tolist():
        pool = (labels == label).nonzero()[:, 0].cpu()
        if len(pool) < size:
            raise ValueError(f"labels: {len(pool)} of class {label}, expected at least {size}")
        groups.append(pool[torch.randperm(len(pool), generator=generator)[:size]])
    return torch.stack(groups)


def attribute_scores(
    values: Mapping[str, Tensor],
    reference: Tensor,
    classes: int,
    *,
    generator: torch.Generator,
) -> dict[str, float]:
    """How an attribute that a condition leaves open behaves among samples, by key.

    Keys: attribute_agreement (share of samples whose views all show one value),
    attribute_distance@pooled (all samples of all conditions against the data),
    attribute_distance@within (the samples of one condition against the data, mean over
    conditions) and attribute_distance@within_floor (as many draws from the data).

    Args:
        values: {name: (C, K)}, what each view shows in K samples of each of C conditions.
        reference: (N,), the values in the data.
        classes: how many values there are.
        generator: draws the samples of the floor, on the CPU.
    """
    stacked = torch.stack([value.cpu() for value in values.values()], -1)  # (C, K, M)
    data = shares(reference.cpu(), classes)
    found = {f"{k}": v.flatten() for k, v in values.items()}
    within = within_conditions(stacked, data, generator)
    return {
        "attribute_agreement": metrics.unconditional_coherence(found),
        "attribute_distance@pooled": total_variation(
            shares(stacked.flatten(), classes), data
        ).item(),
        "attribute_distance@within": within.distance,
        "attribute_distance@within_floor": within.floor,
    }


def within_conditions(values: Tensor, data: Tensor, generator: torch.Generator) -> Variation:
    """Distance of the samples of one condition from the data, mean over conditions and views.

    K samples differ from the shares that they are drawn from by chance alone, the more the smaller
    K is. The floor is what as many draws from the data would show.

    Args:
        values: (C, K, M), what each view shows.
        data: (classes,), shares of each value in the data.
        generator: draws the samples of the floor, on the CPU.
    """
    classes, count = len(data), values.shape[1]
    own = shares(values.transpose(1, 2), classes)  # (C, M, classes)
    draws = torch.multinomial(data.expand(2000, -1), count, replacement=True, generator=generator)
    floor = total_variation(shares(draws, classes), data).mean().item()
    return Variation(total_variation(own, data).mean().item(), floor)
