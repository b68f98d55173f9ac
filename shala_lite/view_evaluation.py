"""Scores of generated sets of views, from everybody who looks at them.

The visual hull asks whether outlines are those of one solid, the judge of attributes and the
matcher whether pictures are of one object, and distances in the judge's features whether such
objects are like real ones, and as varied.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .datasets import MultimodalDataset
from .view_agreement import Seen, ViewJudge, look, majority, spread_scores, view_scores
from .view_matcher import ViewMatcher
from .view_sets import silhouettes
from .visual_hull import hull_scores, overlap

Views = Mapping[str, Tensor]


class ViewEvaluation:
    """Real sets, and judges that compare generated ones with them.

    Args:
        judge, matcher: trained on real views of other objects.
        train: real objects that they may have been trained on; as many as there are in `test` fix
            the scale of features.
        test: real objects that they were not, with `attributes`.
        cameras: (M, 3, 4), see `visual_hull`.
    """

    def __init__(
        self,
        judge: ViewJudge,
        matcher: ViewMatcher,
        train: MultimodalDataset,
        test: MultimodalDataset,
        cameras: Tensor,
    ) -> None:
        self.judge, self.matcher, self.cameras = judge, matcher, cameras
        self.known = self.look(train.subset(slice(len(test))).observations)
        self.real = self.look(test.observations)
        self.outlines = silhouettes(test.observations).cpu()
        self.categories = test.labels.cpu()
        self.truth = {name: known.cpu() for name, known in test.attributes.items()}

    def look(self, views: Views) -> Seen:
        """What the judges see in sets {view: (N, 4, H, W)}; see `view_agreement.look`."""
        return look(self.judge, self.matcher, views)

    def scores(self, sets: Mapping[str, Views], generator: torch.Generator) -> dict[str, float]:
        """All scores {variant/key} of sets {variant: views}, and of `judge` and `floor`.

        Those of `visual_hull.hull_scores` and `view_agreement.view_scores`, and for each variant
        those of `view_agreement.spread_scores`.

        Args:
            sets: as many of each variant as there are real ones.
            generator: shuffles for the floor and deals the pools, on the CPU.
        """
        seen = {variant: self.look(views) for variant, views in sets.items()}
        shapes = {variant: silhouettes(views).cpu() for variant, views in sets.items()}
        found = hull_scores(shapes, self.outlines, self.categories, self.cameras, generator)
        found |= view_scores(seen, self.real, self.judge.classes, generator=generator)
        for variant, some in seen.items():
            spread = spread_scores(some, self.real, self.known)
            found |= {f"{variant}/{key}": value for key, value in spread.items()}
        return found

    def majorities(self, views: Views) -> dict[str, Tensor]:
        """What most views of each set {view: (N, 4, H, W)} show, {attribute: (N,)}."""
        readings = self.look(views).readings
        return {name: majority(read, self.judge.classes[name]) for name, read in readings.items()}

    def strangers(self, generator: torch.Generator) -> Tensor:
        """For each real object another one, (N,) int64, drawn from those of other categories.

        From all others where there is one category.

        Args:
            generator: on the CPU.
        """
        apart = self.categories[:, None] != self.categories
        if not apart.any():
            apart = ~torch.eye(len(apart), dtype=torch.bool)
        return torch.multinomial(apart.float(), 1, generator=generator)[:, 0]

    def followed(self, views: Views, partner: Tensor) -> dict[str, dict[str, float]]:
        """Whom sets follow that were made from a view of object n and one of `partner[n]`.

        Args:
            views: {view: (N, 4, H, W)}, a set for each real object.
            partner: (N,) int64, the position of another real object.

        Returns:
            {attribute: {`one`, `other`, `neither`: share of sets whose majority shows it}}, over
            sets where the two differ, and `outline` last: the overlap of silhouettes with those of
            either. Attributes in which no pair differs are left out.
        """
        partner, found = partner.cpu(), {}
        for name, shown in self.majorities(views).items():
            known = self.truth[name]
            differ = known != known[partner]
            if differ.any():
                one, other = (
                    (shown == right)[differ].double().mean().item()
                    for right in (known, known[partner])
                )
                found[name] = {"one": one, "other": other, "neither": 1 - one - other}
        shapes = silhouettes(views).cpu()
        fits = [
            overlap(shapes, real).mean().item() for real in (self.outlines, self.outlines[partner])
        ]
        return {**found, "outline": dict(zip(("one", "other"), fits))}

    def accuracy(self, seen: Seen) -> float:
        """Share of attributes that are read off views as the real object of that place has them.

        Of sets that were generated from views of the real objects, in their order. The same of real
        sets is the ceiling: from behind not all can be read.
        """
        shares = [
            (seen.readings[name] == known[:, None]).double().mean()
            for name, known in self.truth.items()
        ]
        return torch.stack(shares).mean().item()
