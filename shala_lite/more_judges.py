"""Judges beside those of classes, trained once for an experiment and found again.

One reads attributes off pictures (`attribute_judges`), the other finds partners (`retrieval`).
Where all modalities are views of one shape, one judge of each kind serves them all.
"""

from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

from shala_lite.attribute_judges import AttributeData, AttributeJudge
from shala_lite.experiments import Experiment
from shala_lite.retrieval import Matcher
from shala_lite.stages import seeded
from shala_lite.training import History
from shala_lite.view_agreement import SingleViews, ViewJudge
from shala_lite.view_matcher import ViewGroups, ViewMatcher

Net = TypeVar("Net", bound=nn.Module)
BUDGETS: dict[str, dict[str, Any]] = {
    "eye_": {"steps": 0, "batch": 128, "rate": 4e-3, "width": 16},
    "matcher_": {"steps": 0, "batch": 128, "rate": 4e-3, "widths": [16, 32, 64]},
}


def attribute_judge(experiment: Experiment, classes: dict[str, int]) -> AttributeJudge:
    """The judge of attributes {name: number of values}, by the run's `eye_steps`, `eye_width`."""
    settings, train = experiment.prefixed("eye_", **BUDGETS["eye_"]), experiment.data("train")
    (image,) = (m for m in train.modalities if m.kind == "image")
    with seeded(0):
        judge = AttributeJudge(image, classes, width=settings["width"])
    data = AttributeData(train, image.name, classes)
    return _trained(experiment, judge, data, "attribute_judges", settings, classes)


def matcher(experiment: Experiment) -> Matcher:
    """The judge that finds partners, by the run's `matcher_steps` and `matcher_widths`."""
    settings = experiment.prefixed("matcher_", **BUDGETS["matcher_"])
    train = experiment.data("train")
    with seeded(0):
        judge = Matcher(train.modalities, widths=settings["widths"])
    return _trained(experiment, judge, train, "retrieval", settings)


def view_judge(experiment: Experiment) -> ViewJudge:
    """The judge that reads every attribute of the data off any one view; as `attribute_judge`."""
    settings, train = experiment.prefixed("eye_", **BUDGETS["eye_"]), experiment.data("train")
    classes = {name: int(known.max()) + 1 for name, known in train.attributes.items()}
    with seeded(0):
        judge = ViewJudge(train.modalities[0], classes, width=settings["width"])
    data = SingleViews(train, classes)
    return _trained(experiment, judge, data, "view_agreement", settings, classes)


def view_matcher(experiment: Experiment) -> ViewMatcher:
    """The judge that finds another view of the same object; settings as those of `matcher`."""
    settings = experiment.prefixed("matcher_", **BUDGETS["matcher_"])
    train = experiment.data("train")
    with seeded(0):
        judge = ViewMatcher(train.modalities[0], widths=settings["widths"])
    return _trained(experiment, judge, ViewGroups(train), "view_matcher", settings)


def _trained(
    experiment: Experiment,
    judge: Net,
    data: Any,
    module: str,
    settings: dict[str, Any],
    classes: dict[str, int] | None = None,
) -> Net:
    """The judge with its trained weights, frozen; seed 0 whatever the run's."""
    judge, budget = judge.to(experiment.device), settings | {"seed": 0}

    def make(folder: Path) -> dict[str, History]:
        own = experiment.checkpoints(folder)
        history = experiment.fit_stage(judge, data, budget, budget["steps"], own, module)
        weights = {key: value.contiguous().cpu() for key, value in judge.state_dict().items()}
        save_file(weights, str(folder / "judge.safetensors"))
        return {module: history}

    # the order of the heads counts, which an object of JSON does not keep
    config = {"train": experiment.data("train").fingerprint, **budget}
    config |= {"classes": [*classes.items()]} if classes else {}
    sources, recipe = [module, "training"], "more_judges"
    folder = experiment.stage(module, config, sources, make, recipe=recipe)
    judge.load_state_dict(load_file(str(folder / "judge.safetensors")))
    return judge.eval().requires_grad_(False)
