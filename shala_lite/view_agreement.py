r"""Do the views of a generated set show one object? What judges read off each view alone.

One judge of attributes, f_a(x, m), looks at pictures from all sides (`attribute_judges`). It is
trained on real views alone, each with the attributes of its object. It is told the azimuth of a
view: what is on the left from the front is on the right from behind. Over N sets of M views,

    agreement of a = share of pairs m < k and sets n with f_a(x_nm, m) = f_a(x_nk, k)
    entropy of a   = - sum_c p_c log p_c,    p_c = share of sets whose views mostly show c   [nats]

A model that makes one object agrees with itself, and its entropy is 0. The same judges look at
real sets, the ceiling (a view from behind may hide what a judge should read), and at real views
shuffled across objects, the floor. A matcher, which knows no attributes, looks for views of the
same object (`view_matcher`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import metrics
from .agreement import shares
from .attribute_judges import AttributeData, AttributeJudge
from .datasets import MultimodalDataset
from .judge_nets import readable
from .judges import SMALLEST_STD
from .modalities import Modality
from .view_matcher import ViewMatcher, same_object
from .view_sets import shuffled, views_of


def with_azimuth(x: Tensor, view: Tensor, views: int) -> Tensor:
    """Pictures in [0, 1] with two more channels that say from where they are seen.

    Args:
        x: (B, C, H, W), uint8 or in [0, 1].
        view: (B,) int64, the number k of each view, seen from the azimuth 2 pi k / M.
        views: M.

    Returns:
        (B, C + 2, H, W); the last channels are cosine and sine of the azimuth, moved to [0, 1].
    """
    azimuth = 2 * math.pi * view.to(x.device) / views
    planes = (1 + torch.stack([azimuth.cos(), azimuth.sin()], 1)) / 2
    return torch.cat([readable(x), planes[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


class ViewJudge(AttributeJudge):
    """One judge of attributes for the views from all sides; it reads `with_azimuth`.

    Args:
        modality: of any view: all have one shape.
        classes, width, shift: as in `AttributeJudge`.
    """

    def __init__(
        self, modality: Modality, classes: Mapping[str, int], *, width: int = 16, shift: int = 2
    ) -> None:
        channels, *size = modality.shape
        seen = Modality(modality.name, (channels + 2, *size))
        super().__init__(seen, classes, width=width, shift=shift)


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
        self.places = present.nonzero()  # (K, 2): object, view

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """{"x": (B, C + 2, H, W), with the azimuth, "values": (B, A) int64}."""
        item, view = self.places[indices.to(self.places.device)].T
        every = torch.stack([part.x[item] for part in self.parts])  # (M, B, C, H, W)
        x = every[view, torch.arange(len(item), device=item.device)]
        values = self.parts[0].values  # the same for all views of an object
        return {"x": with_azimuth(x, view, len(self.parts)), "values": values[item]}


class Seen(NamedTuple):
    """What the judges see in N sets: readings {attribute: (N, M)}, points (N, M, P) of the matcher,
    and features (N, M, F), in which the judge of attributes sees them."""

    readings: dict[str, Tensor]
    points: Tensor
    features: Tensor


def look(judge: ViewJudge, matcher: ViewMatcher, views: Mapping[str, Tensor]) -> Seen:
    """What the judges see in sets of views {name: (N, C, H, W)}, uint8 or in [0, 1].

    Raises:
        ValueError: as `check_views`.
    """
    points = matcher.embed(views)
    count, found = len(next(iter(views.values()))), []
    for k, x in enumerate(views.values()):
        found.append(judge.look(with_azimuth(x, torch.full((count,), k), len(views))))
    features, parts = zip(*found, strict=True)
    readings = {name: torch.stack([part[name] for part in parts], 1) for name in judge.classes}
    return Seen(readings, points, torch.stack(features, 1))


def shuffle_seen(seen: Seen, generator: torch.Generator) -> Seen:
    """The same views in sets that do not belong together: each view of another object."""
    count, views = seen.points.shape[:2]
    at = shuffled(torch.zeros(count, dtype=torch.int64), views, generator), torch.arange(views)
    readings = {name: read[at] for name, read in seen.readings.items()}
    return Seen(readings, seen.points[at], seen.features[at])


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


def spread_scores(generated: Seen, real: Seen, known: Seen) -> dict[str, float]:
    """Frechet distance, precision and recall of every view, and their means: see `feature_scores`.

    In the features of the judge of attributes, standardised on real training data.

    Args:
        generated: N sets.
        real: as many real sets that the judge was not trained on.
        known: real training sets, which fix the scale.

    Raises:
        ValueError: another number of sets or views.
    """
    if generated.features.shape != real.features.shape:
        seen, expected = generated.features.shape[:2], real.features.shape[:2]
        raise ValueError(f"generated: {tuple(seen)} sets and views, expected {tuple(expected)}")
    mean = known.features.mean((0, 1))
    std = known.features.flatten(0, 1).std(0).clamp(min=SMALLEST_STD)
    names = [f"view{view:02d}" for view in range(real.features.shape[1])]
    one, other = (
        dict(zip(names, ((seen.features - mean) / std).unbind(1), strict=True))
        for seen in (real, generated)
    )
    return metrics.feature_scores(one, other)
