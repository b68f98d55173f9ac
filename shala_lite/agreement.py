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

from shala_lite import evaluation, metrics
from shala_lite.datasets import frames
from shala_lite.evaluation import Judged


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
    """Mean distance between two samples of one condition, mean over pairs, then modalities.

    Args:
        features: {name: (C, K, D)}, K samples of each of C conditions.
        counted: {name: (C, K) bool}; only pairs of which both count are averaged. Where a sample
            shows another class than asked, its distance is a mistake and not variety.

    Raises:
        ValueError: another shape, fewer than two samples, or no pair that counts in any modality.
    """
    found = []
    for name, phi in features.items():
        if phi.ndim != 3 or phi.shape[1] < 2:
            raise ValueError(f"features[{name!r}]: {tuple(phi.shape)}, expected (C, K, D), K > 1")
        one, other = torch.triu_indices(phi.shape[1], phi.shape[1], offset=1, device=phi.device)
        distance = (phi[:, one].double() - phi[:, other].double()).norm(dim=-1)  # (C, pairs)
        if counted is not None:
            both = counted[name][:, one] & counted[name][:, other]
            distance = distance[both.to(distance.device)]
        if len(distance):
            found.append(distance.mean())
    if not found:
        raise ValueError("counted: no pair of samples, expected at least one")
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


def spread_of_right(
    seen: Judged, truth: Tensor, answers: int, hidden: Tensor | None = None
) -> float:
    """`spread` of judged samples, among those alone that show the right class.

    Args:
        seen: K blocks of C samples, one block after the other, of the same C conditions.
        truth: (K C,), the class of each condition.
        answers: K.
        hidden: (K C, M) bool, the views to look at, such as those that were not given; None is all.

    Raises:
        ValueError: samples that are not K blocks, or as `spread`.
    """
    if not len(truth) or len(truth) % answers:
        raise ValueError(f"answers: {answers}, expected to divide {len(truth)} samples")
    blocks = (answers, len(truth) // answers)

    def by_condition(values: Tensor) -> Tensor:
        return values.unflatten(0, blocks).transpose(0, 1)

    counted = {}
    for index, (name, labels) in enumerate(seen.labels.items()):
        right = labels == truth.cpu()
        counted[name] = by_condition(right if hidden is None else right & hidden[:, index].cpu())
    return spread({name: by_condition(phi) for name, phi in seen.features.items()}, counted)


def answer_scores(
    seen: Judged, reference: Judged, truth: Tensor, given: Tensor, answers: int, scale: float
) -> dict[str, float]:
    """Whether answers are right, and whether they vary, by key.

    Keys: conditional_coherence, diversity_ratio, recall, precision, class_entropy.

    Args:
        seen, truth, answers: as in `spread_of_right`.
        reference: judged real sets, for recall and precision.
        given: (K C, M) bool, the sources; they are not looked at.
        scale: the spread of real items of one class.
    """
    found = evaluation.joint_scores(seen, reference)
    return {
        "conditional_coherence": metrics.coherence_of_absent(seen.labels, truth, given),
        "diversity_ratio": spread_of_right(seen, truth, answers, ~given) / scale,
        **{key: found[key] for key in ("recall", "precision", "class_entropy")},
    }


def frame_scores(
    images: Mapping[str, Tensor], reference: Tensor, answers: int, *, generator: torch.Generator
) -> dict[str, float]:
    """`attribute_scores` of the frames in K blocks of C images {name: (K C, 3, H, W)}.

    Also attribute_blur: how far a frame is from the nearest of the colours, in pixel units.

    Args:
        images: of the framed views.
        reference: (N,), the colours in the data.
        answers: K.
        generator: as in `attribute_scores`.
    """
    read = {name: frames.read_frames(x) for name, x in images.items()}
    values = {name: found.colour.unflatten(0, (answers, -1)).T for name, found in read.items()}
    scores = attribute_scores(values, reference, len(frames.COLOURS), generator=generator)
    blur = torch.stack([found.distance.mean() for found in read.values()]).mean().item()
    return {**scores, "attribute_blur": blur}


def attribute_scores(
    values: Mapping[str, Tensor],
    reference: Tensor,
    classes: int,
    *,
    generator: torch.Generator,
) -> dict[str, float]:
    """How an attribute that a condition leaves open behaves among samples, by key.

    Keys: attribute_agreement (share of samples whose views all show one value) and
    attribute_agreement@independent (that of views that each draw from the data apart);
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
    within = within_conditions(stacked, data, generator)
    pooled = total_variation(shares(stacked.flatten(), classes), data)
    found = {name: value.flatten() for name, value in values.items()}
    return {
        "attribute_agreement": metrics.unconditional_coherence(found),
        "attribute_agreement@independent": (data ** len(values)).sum().item(),
        "attribute_distance@pooled": pooled.item(),
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
