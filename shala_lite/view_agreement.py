r"""Do the views of a generated set show one object? What judges read off each view alone.

One judge of attributes, f_a(x), looks at pictures from all sides (`attribute_judges`). It is
trained on real views alone, each with the attributes of its object. Over N sets of M views,

    agreement of a = share of pairs m < k and sets n with f_a(x_nm) = f_a(x_nk)
    entropy of a   = - sum_c p_c log p_c,    p_c = share of sets whose views mostly show c   [nats]

A model that makes one object agrees with itself, and its entropy is 0. The same judges look at
real sets, the ceiling (a view from behind may hide what a judge should read), and at real views
shuffled across objects, the floor. A matcher, which knows no attributes, looks for views of the
same object (`view_matcher`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import metrics
from .agreement import shares
from .attribute_judges import AttributeData, AttributeJudge
from .datasets import MultimodalDataset
from .judge_nets import readable
from .view_matcher import ViewMatcher, same_object
from .view_sets import shuffled, views_of


class SingleViews:
    """Every view of every object alone, with the object's attributes, for the training loop.

    Views that are not present are left out.

    Args:
        dataset: its image modalities, all of one shape, are the views; with `attributes`.
        names: which attributes, in the order of the columns of a batch's `values`.

    Raises:
        ValueError: an unknown attribute, or views of several shapes.
    """

    def __init__(self, dataset: MultimodalDataset, names: Iterable[str]) -> None:
        views, present = views_of(dataset)
        names = list(names)
        self.parts = [AttributeData(dataset, view, names) for view in views]
        self.places = present.cpu().nonzero()  # (K, 2): object, view

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """{"x": (B, C, H, W) in [0, 1], "values": (B, A) int64}."""
        places = self.places[indices.cpu()]
        x = torch.stack([self.parts[view].x[item] for item, view in places.tolist()])
        values = self.parts[0].values  # the same for all views of an object
        return {"x": readable(x), "values": values[places[:, 0].to(values.device)]}


class Seen(NamedTuple):
    """What the judges see in N sets: readings {attribute: (N, M)}, and points (N, M, P)."""

    readings: dict[str, Tensor]
    points: Tensor


def look(judge: AttributeJudge, matcher: ViewMatcher, views: Mapping[str, Tensor]) -> Seen:
    """What the judges see in sets of views {name: (N, C, H, W)}, uint8 or in [0, 1].

    Raises:
        ValueError: as `check_views`.
    """
    points = matcher.embed(views)
    parts = [judge.read(x) for x in views.values()]
    readings = {name: torch.stack([part[name] for part in parts], 1) for name in judge.classes}
    return Seen(readings, points)


def shuffle_seen(seen: Seen, generator: torch.Generator) -> Seen:
    """The same views in sets that do not belong together: each view of another object."""
    count, views = seen.points.shape[:2]
    at = shuffled(torch.zeros(count, dtype=torch.int64), views, generator), torch.arange(views)
    return Seen({name: read[at] for name, read in seen.readings.items()}, seen.points[at])


def pair_agreement(read: Tensor) -> float:
    """Share of pairs of views that show the same value, of readings (N, M) int64, M > 1."""
    return metrics.pairwise_coherence({str(view): own for view, own in enumerate(read.T)})


def majority(read: Tensor, classes: int) -> Tensor:
    """The value that most views of each set show, (N,), of readings (N, M).

    Of several that tie it is any one.
    """
    return shares(read, classes).argmax(-1)


def majority_entropy(read: Tensor, classes: int) -> float:
    """Entropy of the majorities over sets in nats, at most log(classes), of readings (N, M)."""
    return metrics.class_entropy({"majority": majority(read, classes)}, classes)


def view_scores(
    generated: Mapping[str, Seen],
    real: Seen,
    classes: Mapping[str, int],
    *,
    pool: int = 10,
    generator: torch.Generator,
) -> dict[str, float]:
    """Scores {variant/key} of generated sets, beside those of real ones.

    Keys: view_agreement and attribute_entropy, means over attributes, and of each attribute, such
    as view_agreement@colour; same_object_accuracy, mean over ordered pairs of views. `judge` are
    real sets, the ceiling. `floor` are real views shuffled across objects; their majorities mean
    nothing, so there is no entropy.

    Args:
        generated: {variant: what the judges see}.
        real: what they see in real sets that they were not trained on.
        classes: {attribute: number of its values}, `judge.classes`.
        pool: how many sets a view is sought among; chance is 1 / pool.
        generator: shuffles, and deals the pools, on the CPU.

    Raises:
        ValueError: a variant named `judge` or `floor`, or fewer sets than the pool takes.
    """
    if {"judge", "floor"} & set(generated):
        raise ValueError(f"generated: {list(generated)}, expected other names than judge, floor")
    scores = {}
    sets = {**generated, "judge": real, "floor": shuffle_seen(real, generator)}
    for variant, seen in sets.items():
        columns = {"view_agreement": {a: pair_agreement(seen.readings[a]) for a in classes}}
        if variant != "floor":
            columns["attribute_entropy"] = {
                a: majority_entropy(seen.readings[a], count) for a, count in classes.items()
            }
        for key, values in columns.items():
            scores[f"{variant}/{key}"] = sum(values.values()) / len(values)
            scores |= {f"{variant}/{key}@{a}": value for a, value in values.items()}
        found = same_object(seen.points, pool, generator).nanmean().item()
        scores[f"{variant}/same_object_accuracy"] = found
    return scores
