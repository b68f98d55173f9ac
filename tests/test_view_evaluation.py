"""Everybody who looks at sets of views, at once."""

import pytest
import torch

from shala_lite import metrics
from shala_lite.datasets import load_dataset, shapenet
from shala_lite.runs import check_metric
from shala_lite.view_agreement import ViewJudge
from shala_lite.view_evaluation import ViewEvaluation
from shala_lite.view_matcher import ViewMatcher


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Real objects: those that judges know, those that they are compared with, and more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield [load_dataset("shapenet", split, size=24) for split in ("train", "test", "val")]


@pytest.fixture(scope="module")
def evaluation(others):
    train, test, _ = others
    classes = {name: int(known.max()) + 1 for name, known in train.attributes.items()}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        judge = ViewJudge(train.modalities[0], classes, width=4).eval()
        matcher = ViewMatcher(train.modalities[0], widths=[4, 8]).eval()
    cameras = torch.from_numpy(shapenet.RIGS["shapenet"].matrices())
    return ViewEvaluation(judge, matcher, train, test, cameras)


def test_real_sets_are_at_the_ceiling_and_mixed_ones_at_the_floor(evaluation, others):
    more = others[2].observations
    order = [torch.randperm(24, generator=torch.Generator().manual_seed(m)) for m in range(16)]
    mixed = {name: x[at] for (name, x), at in zip(more.items(), order)}
    scores = evaluation.scores({"real": more, "mixed": mixed}, torch.Generator().manual_seed(0))
    for name in scores:
        check_metric(name, metrics.KEYS)
    assert scores["real/hull_score"] > 0.9
    assert scores["mixed/hull_score"] < 0.3
    assert scores["real/recall"] >= 0
    assert {"judge/view_agreement", "floor/hull_iou", "mixed/frechet_judge"} < set(scores)


def test_accuracy_compares_with_the_object_of_the_same_place(evaluation):
    readings = {
        name: known[:, None].expand(-1, 16).clone() for name, known in evaluation.truth.items()
    }
    right = evaluation.real._replace(readings=readings)
    assert evaluation.accuracy(right) == 1
    turned = {name: read.roll(1, 0) for name, read in readings.items()}
    same = [(turned[name] == readings[name]).double().mean() for name in readings]
    found = evaluation.accuracy(right._replace(readings=turned))
    assert found == pytest.approx(torch.stack(same).mean().item())
    assert found < 0.9


def test_strangers_are_of_another_category_where_there_are_several(evaluation, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    found = evaluation.strangers(rng)
    assert (evaluation.categories[found] != evaluation.categories).all()
    assert len(set(found.tolist())) > 8
    monkeypatch.setattr(evaluation, "categories", torch.zeros(24, dtype=torch.int64))
    alone = evaluation.strangers(rng)
    assert (alone != torch.arange(24)).all()


def test_a_set_follows_the_object_that_it_shows(evaluation, others, monkeypatch):
    partner = evaluation.strangers(torch.Generator().manual_seed(0))
    views = others[1].observations
    truth, other = evaluation.truth, {n: x[partner] for n, x in views.items()}
    monkeypatch.setattr(evaluation, "majorities", lambda views: truth)  # a judge that errs never
    rows = evaluation.followed(views, partner)
    assert list(rows) == [*truth, "outline"]
    for name in truth:
        assert rows[name] == {"one": 1.0, "other": 0.0, "neither": 0.0}
    assert rows["outline"]["one"] == 1.0 > rows["outline"]["other"] + 0.2
    swapped = evaluation.followed(other, partner)["outline"]
    assert swapped == {"one": rows["outline"]["other"], "other": 1.0}
    monkeypatch.setattr(evaluation, "truth", dict.fromkeys(truth, torch.zeros(24).long()))
    assert list(evaluation.followed(views, partner)) == ["outline"]


def test_the_majority_of_a_set_is_what_most_of_its_views_show(evaluation, others):
    views = others[1].observations
    found, readings = evaluation.majorities(views), evaluation.look(views).readings
    for name, shown in found.items():
        votes = (readings[name] == shown[:, None]).sum(1)
        for value in range(evaluation.judge.classes[name]):
            assert (votes >= (readings[name] == value).sum(1)).all()
