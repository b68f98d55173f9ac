r"""What a latent knows of the class, and whether all sources put it in one place.

A probe is a weak classifier trained on few labelled latents (Alain and Bengio 2016): a logistic
regression asks whether classes can be told apart by planes, nearest neighbours whether they lie in
regions. Agreement needs no training: of the k nearest neighbours of z_i,

    mean_i 1/k sum_{j near i} [ y_j = y_i ] ,

where only neighbours from another source and of another item count, so that a latent in which each
source has a place of its own scores low. The silhouette (Rousseeuw 1987) is sklearn's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

PROBES = ("linear", "neighbours")
NEIGHBOURS = 5  # of the probe
CHUNK = 1000


class Probe(NamedTuple):
    """Accuracy, and F1 averaged over classes, each a share in [0, 1]."""

    accuracy: float
    macro_f1: float


def few_of_each(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of `count` random items of every class among labels (N,), or of all it has."""
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels.cpu()[order]
    return torch.cat([order[shuffled == label][:count] for label in shuffled.unique()])


def probe(
    kind: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    labels_per_class: int,
    generator: torch.Generator,
) -> Probe:
    """Train a probe on few labelled latents and score it on others.

    Args:
        kind: `linear`, a logistic regression, or `neighbours`, a vote of the five nearest, weighted
            by the inverse of their distance; both on latents standardised by those few.
        train: latents (N, Z) and labels (N,), of which few are used.
        test: latents and labels to score on.
        labels_per_class: how many of each class are used, at least 1.
        generator: chooses them; on the CPU.

    Raises:
        ValueError: an unknown kind, or fewer labels than 1.
    """
    if kind not in PROBES:
        raise ValueError(f"kind: {kind!r}, expected one of {list(PROBES)}")
    if labels_per_class < 1:
        raise ValueError(f"labels_per_class: {labels_per_class}, expected at least 1")
    at = few_of_each(train[1], labels_per_class, generator)
    z, y = train[0].cpu()[at].numpy(), train[1].cpu()[at].numpy()
    model = (
        LogisticRegression(max_iter=1000)
        if kind == "linear"
        else KNeighborsClassifier(min(NEIGHBOURS, len(z)), weights="distance")
    )
    found = make_pipeline(StandardScaler(), model).fit(z, y).predict(test[0].cpu().numpy())
    truth = test[1].cpu().numpy()
    return Probe(
        float(accuracy_score(truth, found)), float(f1_score(truth, found, average="macro"))
    )


def neighbour_agreement(points: Tensor, labels: Tensor, k: int = 10) -> float:
    """Share of the k nearest neighbours of points (N, Z), by distance, with the same label (N,)."""
    return source_agreement({"": points}, labels, k)


def source_agreement(points: Mapping[str, Tensor], labels: Tensor, k: int = 10) -> float:
    """Share of k nearest neighbours, from other sources and of other items, with the same label.

    Args:
        points: {source: (N, Z)}, latents of the same N items drawn from different sources; with one
            source, neighbours are its own other points.
        labels: (N,), of the items.
        k: neighbours of each point, fewer than N.

    Raises:
        ValueError: k out of range, or lengths that differ.
    """
    sizes = {source: len(z) for source, z in points.items()}
    if set(sizes.values()) != {len(labels)} or not 1 <= k < len(labels):
        raise ValueError(
            f"points and labels have lengths {sizes} and {len(labels)}, k is {k}; "
            "expected one length N, and k from 1 to N - 1"
        )
    right = []
    for source, z in points.items():
        others = [s for s in points if s != source] or [source]
        known = torch.cat([points[s] for s in others])
        theirs = labels.to(z.device).repeat(len(others))
        item = torch.arange(len(labels), device=z.device).repeat(len(others))
        for start in range(0, len(z), CHUNK):
            distance = torch.cdist(z[start : start + CHUNK], known)
            # an item is no neighbour of itself, from whichever source
            itself = item == torch.arange(start, start + len(distance), device=z.device)[:, None]
            distance = distance.masked_fill(itself, torch.inf)
            near = theirs[distance.topk(k, largest=False).indices]
            own = labels.to(z.device)[start : start + CHUNK, None]
            right.append((near == own).double().mean(1))
    return torch.cat(right).mean().item()


def silhouette(points: Tensor, labels: Tensor) -> float:
    """Silhouette of the classes (N,) among points (N, Z), in [-1, 1]: near 1 where they part."""
    return float(silhouette_score(points.cpu().numpy(), labels.cpu().numpy()))
