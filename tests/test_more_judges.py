"""Judges of attributes and of partners: trained once for an experiment, and found again."""

import torch

from shala_lite import metrics, more_judges, runs
from shala_lite.datasets import birds
from shala_lite.experiments import Experiment

CLASSES = {name: len(values) for name, values in birds.VALUES.items()}
PARAMETERS = {
    "profile": "smoke",
    "dataset": "cub",
    "source": "embedded",
    "root": None,
    "seed": 0,
    "train_size": 40,
    "test_size": 10,
    "eye_width": 4,
    "eye_steps": 2,
    "eye_batch": 16,
    "matcher_widths": [4, 8],
    "matcher_steps": 2,
    "matcher_batch": 16,
}


def experiment(**changes):
    """A new experiment, as another process would make it."""
    return Experiment(runs.start("zz_test", PARAMETERS | changes, keys=metrics.KEYS))


def weights(module):
    return torch.cat([p.flatten() for p in module.parameters()])


def test_they_are_trained_once_frozen_and_of_one_seed():
    found = [more_judges.attribute_judge(experiment(seed=seed), CLASSES) for seed in (0, 3)]
    assert weights(found[0]).equal(weights(found[1]))
    assert found[0].classes == CLASSES
    pairs = [more_judges.matcher(experiment(seed=seed)) for seed in (0, 3)]
    assert weights(pairs[0]).equal(weights(pairs[1]))
    for judge in found + pairs:
        assert not judge.training
        assert not any(p.requires_grad for p in judge.parameters())


def test_a_judge_has_its_heads_in_the_order_that_was_asked_for():
    turned = dict(reversed(CLASSES.items()))
    run = experiment()
    for classes in (CLASSES, turned):
        judge = more_judges.attribute_judge(run, classes)
        assert list(judge.classes) == list(classes)
    assert len(run.run.manifest()["artifacts"]) == 2


def test_other_sizes_and_data_give_others_and_the_run_names_them():
    first = experiment()
    more_judges.matcher(first)
    (own,) = [a["name"] for a in first.run.manifest()["artifacts"]]
    assert own.startswith("retrieval-")
    for changes in ({"matcher_steps": 3}, {"train_size": 41}, {"matcher_widths": [4, 4]}):
        other = experiment(**changes)
        more_judges.matcher(other)
        assert [a["name"] for a in other.run.manifest()["artifacts"]] != [own]


def test_one_judge_of_each_kind_serves_all_views():
    views = {"dataset": "shapenet", "train_size": 6, "test_size": 2, "eye_batch": 8}
    found = [experiment(seed=seed, matcher_batch=4, **views) for seed in (0, 3)]
    judges = [(more_judges.view_judge(e), more_judges.view_matcher(e)) for e in found]
    for one, other in zip(*judges):
        assert weights(one).equal(weights(other))
        assert not one.training
    data = found[0].data("train")
    most = {name: int(known.max()) + 1 for name, known in data.attributes.items()}
    assert judges[0][0].classes == most
    assert judges[0][1].embed(data.observations).shape[:2] == (6, 16)
