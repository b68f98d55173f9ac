"""Metrics as plain functions of labels and features; no model is seen here.

Notation: M modalities, N items, labels y_n, and l_m(x) the label that modality m's judge gives.
Coherences are shares in [0, 1]; entropies are in nats; Frechet distances are in squared standard
deviations of the judge's features. Every name that may appear in `metrics.json` is in `KEYS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# Re-exported, so that a reader finds every metric in one place.
from .keys import KEYS as KEYS
from .keys import Key as Key
from .manifolds import PrecisionRecall as PrecisionRecall
from .manifolds import feature_scores as feature_scores
from .manifolds import frechet_between_gaussians as frechet_between_gaussians
from .manifolds import frechet_distance as frechet_distance
from .manifolds import paired_frechet_ratio as paired_frechet_ratio
from .manifolds import precision_recall as precision_recall


class Coherence(NamedTuple):
    """Mean over ordered pairs, and the matrix behind it: row source, column target."""

    mean: float
    matrix: Tensor
    names: tuple[str, ...]


class Interval(NamedTuple):
    """A difference of means with the ends of its confidence interval."""

    difference: float
    low: float
    high: float


def _stack(predictions: Mapping[str, Tensor]) -> Tensor:
    """Labels (M, N) of predictions {name: (N,)}, checked."""
    if not predictions:
        raise ValueError("predictions is empty; expected {modality name: (N,) labels}")
    sizes = {name: tuple(labels.shape) for name, labels in predictions.items()}
    shape = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1 or len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"predictions have shapes {sizes}; expected one shape (N,), N > 0")
    return torch.stack(list(predictions.values()))


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of predicted labels (N,) that equal the labels (N,)."""
    if predicted.shape != labels.shape or labels.numel() == 0:
        shapes = tuple(predicted.shape), tuple(labels.shape)
        raise ValueError("predicted has shape {}; expected labels' {}".format(*shapes))
    return (predicted.to(labels.device) == labels).double().mean().item()


def conditional_coherence(
    predictions: Mapping[str, Mapping[str, Tensor]], labels: Tensor
) -> Coherence:
    """Accuracy of the target's judge when the target was generated from one source alone.

        mean over s != t of (1/N) sum_n [ l_t(x_t generated from x_s,n) = y_n ]

    The convention of MMVAE+ (Palumbo et al., 2023): ordered pairs, source != target.

    Args:
        predictions: {source: {target: (N,) judged labels}}. A target that is its own source may
            be given: it is shown on the diagonal and left out of the mean.
        labels: (N,) true labels.

    Raises:
        ValueError: a pair source != target is missing, or shapes differ.
    """
    names = tuple(predictions)
    matrix = torch.full((len(names), len(names)), math.nan, dtype=torch.float64)
    for row, source in enumerate(names):
        for column, target in enumerate(names):
            if target in predictions[source]:
                matrix[row, column] = accuracy(predictions[source][target], labels)
            elif source != target:
                raise ValueError(f"predictions lack {target!r} generated from {source!r}")
    pairs = matrix[~torch.eye(len(names), dtype=torch.bool)]
    if not len(pairs):
        raise ValueError(f"predictions name {list(names)}; expected at least two modalities")
    return Coherence(pairs.mean().item(), matrix, names)


def random_subsets(n: int, modalities: int, size: int, generator: torch.Generator) -> Tensor:
    """For each of n items, a uniform random subset of `size` modalities, (n, M) bool."""
    if not 0 <= size <= modalities:
        raise ValueError(f"size is {size}; expected 0 to {modalities}")
    order = torch.rand(n, modalities, generator=generator, device=generator.device).argsort(1)
    return order.argsort(1) < size


def coherence_of_absent(predictions: Mapping[str, Tensor], labels: Tensor, given: Tensor) -> float:
    """Conditional coherence when each item was generated from a subset of its modalities.

    Accuracy over all pairs of an item and a modality that was not given. With one random subset
    of one size per item (`random_subsets`) this is the coherence at that number of sources.

    Args:
        predictions: {name: (N,) judged labels}, in the order of the columns of `given`.
        labels: (N,) true labels.
        given: (N, M) bool, the sources of each item.

    Raises:
        ValueError: shapes differ, or nothing is absent.
    """
    judged = _stack(predictions)
    if given.shape != judged.T.shape or labels.shape != judged.shape[1:]:
        raise ValueError(
            f"given has shape {tuple(given.shape)} and labels {tuple(labels.shape)}; "
            f"expected {tuple(judged.T.shape)} and {tuple(judged.shape[1:])}"
        )
    right = (judged == labels.to(judged.device)).T[~given.to(judged.device)]
    if not right.numel():
        raise ValueError("given is true everywhere; expected some absent modality to judge")
    return right.double().mean().item()


def sets_agree(predictions: Mapping[str, Tensor]) -> Tensor:
    """Whether all judges give one label, per set: (N,) bool of predictions {name: (N,)}."""
    judged = _stack(predictions)
    return (judged == judged[0]).all(0)


def unconditional_coherence(predictions: Mapping[str, Tensor]) -> float:
    """Share of jointly generated sets whose M judges all agree. Falls with M by itself."""
    return sets_agree(predictions).double().mean().item()


def pairwise_coherence(predictions: Mapping[str, Tensor]) -> float:
    """Share of agreeing judges over all pairs of modalities and sets; free of M's pull.

    Raises:
        ValueError: fewer than two modalities.
    """
    judged = _stack(predictions)
    count = len(judged)
    if count < 2:
        raise ValueError(f"predictions name {list(predictions)}; expected at least two modalities")
    agree = sum((judged[m] == judged[m + 1 :]).sum().item() for m in range(count - 1))
    return agree / (judged.shape[1] * count * (count - 1) / 2)


def set_scores(predictions: Mapping[str, Tensor], classes: int = 10) -> dict[str, float]:
    """Unconditional and pairwise coherence and class entropy of generated sets, by key."""
    return {
        "unconditional_coherence": unconditional_coherence(predictions),
        "pairwise_coherence": pairwise_coherence(predictions),
        "class_entropy": class_entropy(predictions, classes),
    }


def class_histogram(labels: Tensor, classes: int) -> Tensor:
    """Shares (classes,) of each label among labels of any shape; they sum to one."""
    counts = torch.bincount(labels.flatten(), minlength=classes)
    if len(counts) > classes:
        raise ValueError(f"classes is {classes}, yet a label is {len(counts) - 1}")
    return counts.double() / counts.sum()


def class_entropy(predictions: Mapping[str, Tensor], classes: int = 10) -> float:
    """Entropy -sum_c p_c log p_c of the judged classes, in nats, mean over modalities.

    At most log(classes), 2.303 for ten; 0 for a generator that makes one class only, however
    well its modalities agree.
    """
    shares = [class_histogram(judged, classes) for judged in _stack(predictions)]
    return torch.stack([torch.special.entr(p).sum() for p in shares]).mean().item()


def independent_coherence(predictions: Mapping[str, Tensor], classes: int = 10) -> float:
    """Floor of unconditional coherence: sum_c prod_m p_m(c), agreement of shuffled modalities."""
    shares = [class_histogram(judged, classes) for judged in _stack(predictions)]
    return torch.stack(shares).prod(0).sum().item()


def chance(labels: Tensor, classes: int = 10) -> float:
    """Floor of conditional coherence: the best constant guess, the share of the commonest class."""
    return class_histogram(labels, classes).max().item()


def rescaled(value: float, *, floor: float, ceiling: float) -> float:
    """(value - floor) / (ceiling - floor): 0 at the floor, 1 at the ceiling."""
    if floor == ceiling:
        raise ValueError(f"floor and ceiling are both {floor}; expected two different numbers")
    return (value - floor) / (ceiling - floor)


def paired_bootstrap_interval(
    a: Tensor,
    b: Tensor,
    *,
    generator: torch.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of mean(a) - mean(b), resampling pairs (Efron, 1979).

    Args:
        a, b: (N,) scores of two settings, paired by item, or by seed and initial noise.
        generator: draws the resamples.
        level: coverage, 0.95 by default.

    Raises:
        ValueError: a and b are not two vectors of one length of at least 2.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"a and b have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected one (N,), N > 1"
        )
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1")
    differences = (a.double() - b.double()).to(generator.device)
    n = len(differences)
    means = []
    for count in torch.full((resamples,), 1).split(max(1, 4_000_000 // n)):  # bounded memory
        picks = torch.randint(n, (len(count), n), generator=generator, device=generator.device)
        means.append(differences[picks].mean(1))
    tail = (1 - level) / 2
    levels = torch.tensor([tail, 1 - tail], dtype=torch.float64, device=generator.device)
    ends = torch.quantile(torch.cat(means), levels)
    return Interval(differences.mean().item(), ends[0].item(), ends[1].item())
