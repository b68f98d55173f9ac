"""Distances between two sets of judge's features: Frechet distance, precision and recall.

Both see features (N, D) of real and of generated items. The Frechet distance compares two
moments and mixes fidelity with diversity; precision asks how many generated items look real,
recall how many real items the generator could have made. One stands beside the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 1024  # rows of a distance matrix held at once


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: fake items on the real manifold, real items on the fake one."""

    precision: float
    recall: float


class Ratio(NamedTuple):
    """A ratio of two distances with the ends of its confidence interval."""

    ratio: float
    low: float
    high: float


def _check_features(real: Tensor, fake: Tensor, least: int) -> tuple[Tensor, Tensor]:
    for name, features in (("first", real), ("second", fake)):
        if features.ndim != 2 or len(features) < least:
            raise ValueError(
                f"{name} features have shape {tuple(features.shape)}; expected (N, D), N >= {least}"
            )
        if not features.isfinite().all():
            raise ValueError(f"{name} features are not all finite")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"features have widths {real.shape[1]} and {fake.shape[1]}")
    return real.double(), fake.double().to(real.device)


def frechet_between_gaussians(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians (Dowson and Landau, 1982).

        |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2)

    Means (D,), covariances (D, D). The square roots come from symmetric eigendecompositions in
    float64, so that singular covariances are no trouble and nothing turns complex.
    """
    a, b = covariance_a.double(), covariance_b.double()
    return _from_root(mean_a.double(), a, _root(a), mean_b.double(), b)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance (D, D) in float64."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _from_root(mean_a: Tensor, a: Tensor, root: Tensor, mean_b: Tensor, b: Tensor) -> float:
    """The distance of `frechet_between_gaussians`, with A^1/2 already known."""
    product = root @ b @ root
    spectrum = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0)
    shift = (mean_a - mean_b).square().sum()
    distance = shift + a.trace() + b.trace() - 2 * spectrum.sqrt().sum()
    return max(distance.item(), 0.0)


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to two feature sets (N, D), (N', D).

    The number behind FID (Heusel et al., 2017), on whatever features are given. Biased upwards
    for small N: compare at equal N only, and state N.

    Raises:
        ValueError: fewer than two items, different widths, or features that are not finite.
    """
    a, b = _check_features(features_a, features_b, least=2)
    return frechet_between_gaussians(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))


def paired_frechet_ratio(
    real: Mapping[str, Tensor],
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    generator: torch.Generator,
    level: float = 0.95,
    resamples: int = 200,
) -> Ratio:
    """How many times farther from real features set a is than set b, with a bootstrap interval.

        ratio = mean_m d(real_m, a_m) / mean_m d(real_m, b_m),    d the squared Frechet distance

    Row n of a and of b began with the same noise, so each resample takes the same rows of both, in
    all modalities; the real set is fixed. A resample repeats rows, which widens both distances and
    pulls their ratio to 1: the logarithms of the resampled ratios are moved so that their mean is
    that of the ratio itself (percentiles after Efron, 1979).

    Args:
        real: features {name: (N', D)} of real items.
        a, b: features {name: (N, D)} of two settings, paired by row.
        generator: draws the resamples, on the CPU.
        level: coverage, 0.95 by default.
        resamples: at least 2.

    Raises:
        ValueError: other modalities, sets that are not paired, b at distance 0, or features,
            level or resamples that do not fit.
    """
    if not real or not set(real) == set(a) == set(b):
        raise ValueError(f"modalities are {[list(x) for x in (real, a, b)]}; expected the same")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1")
    if resamples < 2:
        raise ValueError(f"resamples is {resamples}; expected at least 2")
    lengths = {len(features) for side in (a, b) for features in side.values()}
    if len(lengths) > 1:
        raise ValueError(f"a and b have {sorted(lengths)} rows; expected as many, paired")
    (n,), known = lengths, {}
    for name, features in real.items():
        pair = [_check_features(features.cpu(), side[name].cpu(), least=2) for side in (a, b)]
        covariance = torch.cov(pair[0][0].T)
        known[name] = (pair[0][0].mean(0), covariance, _root(covariance)), [x for _, x in pair]

    def ratio(rows: Tensor) -> float:
        far = [0.0, 0.0]
        for gaussian, sides in known.values():
            for side, features in enumerate(sides):
                x = features[rows]
                far[side] += _from_root(*gaussian, x.mean(0), torch.cov(x.T))
        if far[1] == 0:
            raise ValueError("b is at distance 0 from real; expected another set")
        return far[0] / far[1]

    found = ratio(torch.arange(n))
    if found == 0:
        raise ValueError("a is at distance 0 from real; expected another set")
    drawn = [ratio(torch.randint(n, (n,), generator=generator)) for _ in range(resamples)]
    logs = torch.tensor(drawn, dtype=torch.float64).log()
    tail = (1 - level) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = (found * (logs - logs.mean()).quantile(ends).exp()).tolist()
    return Ratio(found, low, high)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (len(a), len(b)), by matrix product."""
    squares = a.square().sum(1, keepdim=True) + b.square().sum(1)
    return squares.addmm_(a, b.T, alpha=-2).clamp_min_(0)


def _radii(points: Tensor, k: int) -> Tensor:
    """Squared distance (N,) of each point to its k-th nearest other point."""
    nearest = [
        _squared_distances(rows, points).topk(k + 1, largest=False, sorted=False).values
        for rows in points.split(ROWS)
    ]
    return torch.cat(nearest).amax(1)  # several times faster than `kthvalue`


def _share(inside: Tensor) -> float:
    return inside.double().mean().item()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al., 2019) of features (N, D), (N', D).

    A set's manifold is the union of balls around its points, each reaching to its k-th nearest
    neighbour. Precision is the share of fake points on the real manifold; recall is the share
    of real points on the fake one. Both depend on N, so compare at equal N and k.

    A set in which every item comes more than k times, nearly the same, has balls that reach only
    from one copy to the next: almost nothing lies on its manifold. The 2,000 embedded test sets
    show 300 scans; their first 300 (`MultimodalDataset.distinct`) show each once in each modality.

    Raises:
        ValueError: k < 1, or a set with no more than k points, or features that do not fit.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    real, fake = _check_features(real, fake, least=k + 1)
    centre = real.mean(0)
    real, fake = real - centre, fake - centre  # keeps the matrix product accurate
    # Rounding of a squared distance: points that coincide must count as inside a ball of radius 0.
    slack = 1e-12 * max(real.square().sum(1).max().item(), fake.square().sum(1).max().item())
    reach_of_real, reach_of_fake = _radii(real, k) + slack, _radii(fake, k) + slack
    on_real, on_fake = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, reach in zip(fake.split(ROWS), reach_of_fake.split(ROWS)):
        distances = _squared_distances(rows, real)
        on_real.append((distances <= reach_of_real).any(1))
        on_fake |= (distances <= reach[:, None]).any(0)
    return PrecisionRecall(precision=_share(torch.cat(on_real)), recall=_share(on_fake))


def feature_scores(
    real: Mapping[str, Tensor],
    fake: Mapping[str, Tensor],
    k: int = 3,
    *,
    distinct: int | None = None,
) -> dict[str, float]:
    """Frechet distance, precision and recall per modality and their means, under their keys.

    Args:
        real, fake: judge's features {name: (N, D)} of the same modalities.
        k: neighbours, as in `precision_recall`.
        distinct: how many leading items repeat nothing; precision and recall look at these alone.
            None: all do.

    Returns:
        {"frechet_judge": mean, "frechet_judge@m0": ..., "precision": ..., "recall": ...}
    """
    if not real or set(real) != set(fake):
        raise ValueError(f"real has modalities {list(real)} and fake {list(fake)}; expected equal")
    scores: dict[str, float] = {}
    for name in real:
        scores[f"frechet_judge@{name}"] = frechet_distance(real[name], fake[name])
        precision, recall = precision_recall(real[name][:distinct], fake[name][:distinct], k)
        scores[f"precision@{name}"], scores[f"recall@{name}"] = precision, recall
    for key in ("frechet_judge", "precision", "recall"):
        scores[key] = sum(scores[f"{key}@{name}"] for name in real) / len(real)
    return scores
