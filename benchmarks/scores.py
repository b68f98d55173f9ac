"""What the judges say of a trained model, and whether MultiVae's evaluator says the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peer import load
from shala_lite import metrics
from shala_lite.datasets import MultimodalDataset
from shala_lite.evaluation import CHUNK, Judged, joint_scores, judge_dataset
from shala_lite.judges import Judges

TOLERANCE = 1e-6  # MultiVae keeps its accuracies as 32-bit floats


def judge_images(images: Iterable[dict[str, Tensor]], judges: Judges) -> Judged:
    """Labels and features of chunks of images."""
    found = [judges.judge(x) for x in images]
    return Judged(
        {name: torch.cat([one[name].labels.cpu() for one in found]) for name in found[0]},
        {name: torch.cat([one[name].features.cpu() for one in found]) for name in found[0]},
    )


def _sources(data: MultimodalDataset, names: Iterable[str]) -> Iterator[tuple[int, dict]]:
    for index, batch in enumerate(data.batches(CHUNK)):
        yield index, {name: batch["x"][name] for name in names}


def quality(model: Any, judges: Judges, test: MultimodalDataset, seed: int) -> dict[str, float]:
    """Scores by key: conditional coherence, and those of as many generated sets as test items.

    Conditional coherence is over ordered pairs, source != target, on all of `test`.
    """
    predictions = {
        name: judge_images(
            (model.translate(x, seed + index) for index, x in _sources(test, [name])), judges
        ).labels
        for name in judges.names
    }
    counts = [min(CHUNK, len(test) - start) for start in range(0, len(test), CHUNK)]
    sets = (model.generate(count, seed + index) for index, count in enumerate(counts))
    scores = joint_scores(judge_images(sets, judges), judge_dataset(judges, test))
    conditional = metrics.conditional_coherence(predictions, test.labels.cpu()).mean
    return {"conditional_coherence": conditional, **scores}


def balanced_items(labels: Tensor, most: int | None = None) -> Tensor:
    """Positions of equally many items of each class, in order.

    On such items plain accuracy is the mean of the accuracies of the classes, so that a definition
    that weighs items and one that weighs classes have to agree.

    Args:
        labels: (N,) int64.
        most: items in all, at most; None is as many as there are.

    Raises:
        ValueError: `most` is less than one item of each class.
    """
    classes, counts = labels.unique(return_counts=True)
    each = int(counts.min()) if len(counts) else 0
    if most is not None:
        each = min(each, most // max(1, len(classes)))
    if each < 1:
        raise ValueError(f"most: {most} of {len(labels)} items, expected one of each class")
    picks = [(labels == label).nonzero()[:each, 0] for label in classes]
    return torch.cat(picks).sort().values


class Recorded(nn.Module):
    """Looks like a model of MultiVae's, and hands out images that were generated before.

    Args:
        names: the modalities.
        conditional: {sources: {target: (N, *shape)}} by tuple of sources.
        joint: {name: (n, *shape)}.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        conditional: dict[tuple[str, ...], dict[str, Tensor]],
        joint: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Identity() for name in names})
        self.n_modalities = len(names)
        self.conditional, self.joint, self.handed = conditional, joint, 0

    def predict(self, batch: Any, subset: list[str], targets: list[str], **_: Any) -> dict:
        """The images of the items whose positions are in the batch."""
        at = batch.data["position"]
        return {name: self.conditional[tuple(subset)][name][at] for name in targets}

    def generate_from_prior(self, n: int) -> Any:
        """Positions of the next n recorded sets, in place of latents."""
        at = torch.arange(self.handed, self.handed + n)
        self.handed += n
        return SimpleNamespace(z=at, one_latent_space=True)

    def decode(self, output: Any) -> dict[str, Tensor]:
        """The recorded sets at these positions."""
        return {name: images[output.z] for name, images in self.joint.items()}


def agreement(
    model: Any, judges: Judges, test: MultimodalDataset, seed: int, most: int = 500
) -> list[dict[str, Any]]:
    """One set of samples, scored by our coherence code and by MultiVae's `CoherenceEvaluator`.

    MultiVae groups conditional coherence by the number of sources, averages over all subsets of
    that size and over the targets outside of it, and weighs classes equally. Ours weighs items
    equally, so the items are class-balanced: then both are the same number. With one source, ours
    is `conditional_coherence`; with more, `coherence_of_absent` of one subset for all items.

    Returns:
        A row for each number: `score`, `ours`, `multivae`, `difference`.

    Raises:
        AssertionError: they differ by more than `TOLERANCE`.
    """
    peer, names = load(), judges.names
    data = test.subset(balanced_items(test.labels.cpu(), min(most, CHUNK)))
    x, labels = data.batch(torch.arange(len(data)))["x"], data.labels.cpu()
    conditional, predicted = {}, {}
    for size in range(1, len(names)):
        for given in combinations(names, size):
            images = model.translate({name: x[name] for name in given}, seed)
            conditional[given] = {m: image.cpu() for m, image in images.items() if m not in given}
            predicted[given] = {m: y.cpu() for m, y in judges.predict(images).items()}
    joint = {name: image.cpu() for name, image in model.generate(len(data), seed).items()}

    single = {given[0]: found for given, found in predicted.items() if len(given) == 1}
    ours = {"mean_coherence_1": metrics.conditional_coherence(single, labels).mean}
    for size in range(2, len(names)):
        each = []
        for given in (given for given in predicted if len(given) == size):
            mask = torch.tensor([name in given for name in names]).expand(len(data), -1)
            each.append(metrics.coherence_of_absent(predicted[given], labels, mask))
        ours[f"mean_coherence_{size}"] = sum(each) / len(each)
    ours["joint_coherence_prior"] = metrics.unconditional_coherence(judges.predict(joint))

    positions = torch.arange(len(data))
    # one batch for all, as the judges have it above: a label must not hang on rounding
    evaluator = peer.metrics.CoherenceEvaluator(
        model=Recorded(names, conditional, joint),
        classifiers={name: judges[name] for name in names},
        test_dataset=peer.data.MultimodalBaseDataset({"position": positions}, labels),
        eval_config=peer.metrics.CoherenceEvaluatorConfig(
            batch_size=len(data), num_classes=10, nb_samples_for_joint=len(data)
        ),
    )
    evaluator.logger.setLevel("WARNING")
    with torch.no_grad():
        theirs = evaluator.eval()
    evaluator.finish()
    rows = []
    for score, value in ours.items():
        other = float(theirs[score])
        difference = abs(value - other)
        rows.append(dict(score=score, ours=value, multivae=other, difference=difference))
        assert difference < TOLERANCE, f"{score}: ours {value}, MultiVae's {other}"
    return rows
