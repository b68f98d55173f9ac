"""What judges read off each view, and whether they read the same."""

import math

import pytest
import torch

from shala_lite import metrics
from shala_lite.datasets import MultimodalDataset
from shala_lite.modalities import Modality
from shala_lite.runs import check_metric
from shala_lite.training import fit
from shala_lite.view_agreement import (
    Seen,
    SingleViews,
    ViewJudge,
    look,
    majority,
    majority_entropy,
    pair_agreement,
    shuffle_seen,
    spread_scores,
    view_scores,
    with_azimuth,
)
from shala_lite.view_matcher import ViewGroups, ViewMatcher

VIEWS, SHAPE = 3, (4, 8, 8)
CLASSES = {"hue": 4, "size": 2}
HUES = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.9], [0.9, 0.9, 0.1]])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def patches(count, seed=0, present=None):
    """Squares of one hue and one of two sizes, on white, in a light that differs from view to view.

    Each object has a tint of its own, which all its views share: a matcher may find it.
    """
    draw = rng(seed)
    known = {a: torch.randint(c, (count,), generator=draw) for a, c in CLASSES.items()}
    tint = 0.15 * torch.rand(count, 1, 3, generator=draw)
    light = 0.85 + 0.15 * torch.rand(count, VIEWS, 1, generator=draw)
    colour = (HUES[known["hue"]][:, None] * light + tint).clamp(0, 1)
    x = torch.ones(count, VIEWS, *SHAPE)
    x[:, :, 3] = 0
    for item, size in enumerate(known["size"].tolist()):
        inner = slice(3 - 2 * size, 5 + 2 * size)
        x[item, :, :3, inner, inner] = colour[item][:, :, None, None]
        x[item, :, 3, inner, inner] = 1
    modalities = [Modality(f"side{m}", SHAPE) for m in range(VIEWS)]
    seen = {m.name: (255 * x[:, at]).to(torch.uint8) for at, m in enumerate(modalities)}
    labels = torch.zeros(count, dtype=torch.int64)
    return MultimodalDataset(modalities, seen, labels, present, attributes=known)


@pytest.fixture(scope="module")
def judges():
    """A judge of attributes and a matcher, trained on real sets."""
    train = patches(400, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        judge = ViewJudge(train.modalities[0], CLASSES, width=4, shift=0)
        matcher = ViewMatcher(train.modalities[0], points=16, widths=[8, 16])
    options = dict(batch_size=50, learning_rate=4e-3, seed=0, progress=False)
    fit(judge, SingleViews(train, CLASSES), steps=100, **options)
    fit(matcher, ViewGroups(train), steps=60, **options)
    return judge, matcher


def test_every_view_that_is_present_is_an_item_of_its_own():
    present = torch.ones(5, VIEWS, dtype=torch.bool)
    present[1, 0] = False
    data = patches(5, present=present)
    single = SingleViews(data, ["size", "hue"])
    assert len(single) == 5 * VIEWS - 1
    batch = single.batch(torch.arange(len(single)))
    assert batch["x"].shape == (14, SHAPE[0] + 2, *SHAPE[1:])
    places = [(item, view) for item in range(5) for view in range(VIEWS) if (item, view) != (1, 0)]
    for row, (item, view) in enumerate(places):
        seen = data.observations[f"side{view}"][item : item + 1]
        assert batch["x"][row].equal(with_azimuth(seen, torch.tensor([view]), VIEWS)[0])
        expected = [int(data.attributes[name][item]) for name in ("size", "hue")]
        assert batch["values"][row].tolist() == expected
    with pytest.raises(ValueError, match=r"names: \['tail'\] unknown, expected some of"):
        SingleViews(data, ["tail"])


def test_the_azimuth_is_a_point_on_a_circle_beside_an_unchanged_picture():
    x = torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8, generator=rng())
    seen = with_azimuth(x, torch.arange(4), 4)
    assert seen[:, :4].equal(x.float() / 255)
    places = seen[:, 4:].flatten(2)
    assert (places == places[..., :1]).all()  # the same in all pixels
    expected = torch.tensor([[1, 0.5], [0.5, 1], [0, 0.5], [0.5, 0]])
    assert torch.allclose(places[..., 0], expected, atol=1e-6)


def test_what_is_left_from_the_front_and_right_from_behind_is_read_as_one_side():
    count = 300
    side = torch.randint(0, 2, (count,), generator=rng())
    modalities = [Modality(name, SHAPE) for name in ("front", "back")]
    x = torch.rand(count, 2, *SHAPE, generator=rng()) / 2
    for item, right in enumerate(side.tolist()):
        for view in (0, 1):
            x[item, view, :, 2:6, slice(5, 7) if right == (view == 0) else slice(1, 3)] = 1
    views = {m.name: (255 * x[:, at]).to(torch.uint8) for at, m in enumerate(modalities)}
    data = MultimodalDataset(modalities, views, 0 * side, attributes={"side": side})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        judge = ViewJudge(modalities[0], {"side": 2}, width=4, shift=0)
        matcher = ViewMatcher(modalities[0], points=4, widths=[4, 4])
    options = dict(batch_size=50, learning_rate=4e-3, seed=0, progress=False)
    fit(judge, SingleViews(data.subset(slice(200)), ["side"]), steps=80, **options)
    test = data.subset(slice(200, count))
    read = look(judge, matcher, test.observations).readings["side"]
    # Without the azimuth both sides look the same over all views: chance.
    assert (read == test.attributes["side"][:, None]).double().mean() > 0.95
    turned = {"front": test.observations["back"], "back": test.observations["front"]}
    read = look(judge, matcher, turned).readings["side"]
    assert (read == 1 - test.attributes["side"][:, None]).double().mean() > 0.95


def test_agreement_is_of_pairs():
    read = torch.tensor([[0, 0, 1], [2, 2, 2]])
    assert pair_agreement(read) == (1 + 3) / 6
    assert majority(torch.tensor([[0, 1, 1], [2, 0, 2]]), 3).tolist() == [1, 2]


def test_the_entropy_is_that_of_majorities():
    even = torch.tensor([[1, 0, 0], [1, 1, 0], [2, 1, 2]])
    assert majority_entropy(even, 3) == pytest.approx(math.log(3))
    # A collapsed model shows one thing, whatever a single view says.
    assert majority_entropy(torch.tensor([[1, 1, 0], [1, 2, 1]]), 3) == 0


def test_judges_read_every_view_of_real_sets(judges):
    data = patches(60, seed=2)
    seen = look(*judges, data.observations)
    assert seen.points.shape == (60, VIEWS, 16)
    for name in CLASSES:
        assert seen.readings[name].shape == (60, VIEWS)
        right = seen.readings[name] == data.attributes[name][:, None]
        assert right.double().mean() > 0.97
    with pytest.raises(ValueError, match="one shape"):
        look(*judges, {"side0": data.observations["side0"]})


def test_shuffled_sets_have_the_same_views_in_other_company():
    read = torch.arange(20)[:, None] * 10 + torch.arange(VIEWS)
    points = read[..., None].float().expand(-1, -1, 2)
    mixed = shuffle_seen(Seen({"hue": read}, points, points), rng())
    found = mixed.readings["hue"]
    assert (found % 10 == torch.arange(VIEWS)).all()  # a view stays in its place
    assert found.flatten().sort().values.equal(read.flatten())  # each is used once
    assert all(len(set(row)) == VIEWS for row in (found // 10).tolist())
    assert mixed.points[..., 0].equal(found.float())  # readings and points stay together


def test_scores_tell_consistent_sets_from_shuffled_and_from_collapsed_ones(judges):
    train, test = patches(150, seed=3), patches(150, seed=4)
    real = look(*judges, test.observations)
    one = {name: x[:1].expand(150, -1, -1, -1) for name, x in test.observations.items()}
    order = [torch.randperm(150, generator=rng(m)) for m in range(VIEWS)]
    mixed = {name: x[at] for (name, x), at in zip(test.observations.items(), order)}
    generated = {
        "prior": look(*judges, train.observations),
        "mixed": look(*judges, mixed),
        "collapsed": look(*judges, one),
    }
    scores = view_scores(generated, real, CLASSES, pool=10, generator=rng())
    for name in scores:
        check_metric(name, metrics.KEYS)
    for name, classes in CLASSES.items():
        values = test.attributes[name]
        shares = values.bincount(minlength=classes).double() / len(values)
        entropy = torch.special.entr(shares).sum().item()
        by_chance = shares.square().sum().item()
        for variant in ("prior", "judge"):
            assert scores[f"{variant}/view_agreement@{name}"] > 0.97
            assert scores[f"{variant}/attribute_entropy@{name}"] == pytest.approx(entropy, abs=0.1)
        for variant in ("mixed", "floor"):
            agreement = scores[f"{variant}/view_agreement@{name}"]
            assert agreement == pytest.approx(by_chance, abs=0.12)
        # All sets show one object: nothing varies.
        assert scores[f"collapsed/attribute_entropy@{name}"] == 0
    both = [scores[f"judge/view_agreement@{name}"] for name in CLASSES]
    assert scores["judge/view_agreement"] == pytest.approx(sum(both) / 2)
    assert "floor/attribute_entropy" not in scores
    for variant in ("mixed", "floor"):
        assert scores[f"{variant}/same_object_accuracy"] == pytest.approx(0.1, abs=0.07)
    for variant in ("prior", "judge"):
        assert scores[f"{variant}/same_object_accuracy"] > 0.4
    # Its views agree, yet none of its sets can be told from the others.
    assert scores["collapsed/view_agreement"] == 1
    assert scores["collapsed/same_object_accuracy"] == 0


def test_refuses_names_that_are_taken_and_pools_that_are_too_large(judges):
    real = look(*judges, patches(12).observations)
    with pytest.raises(ValueError, match="expected other names than judge, floor"):
        view_scores({"judge": real}, real, CLASSES, generator=rng())
    with pytest.raises(ValueError, match="pool: 13, expected 2 to 12"):
        view_scores({}, real, CLASSES, pool=13, generator=rng())


def test_spread_falls_where_sets_are_alike_and_distances_grow(judges):
    known, real, more = (look(*judges, patches(150, seed=s).observations) for s in (1, 4, 5))
    one = Seen(*({} if type(part) is dict else part[:1].expand_as(part) for part in real))
    scores = {"real": spread_scores(more, real, known), "alike": spread_scores(one, real, known)}
    for name in scores["real"]:
        check_metric(f"prior/{name}", metrics.KEYS)
    assert {f"recall@view{view:02d}" for view in range(VIEWS)} < set(scores["real"])
    assert scores["real"]["frechet_judge"] < 0.2 * scores["alike"]["frechet_judge"]
    assert scores["real"]["recall"] > 0.5
    assert scores["alike"]["recall"] < 0.1
    # the scale is that of training data: what is standardised has a spread of one
    mean, std = known.features.mean((0, 1)), known.features.flatten(0, 1).std(0)
    shifted = more._replace(features=more.features + 2 * std)
    moved = spread_scores(shifted, more, known)["frechet_judge"]
    assert moved == pytest.approx(4 * len(mean), rel=0.01)


def test_spread_wants_as_many_sets_and_views_on_both_sides(judges):
    few, real = (look(*judges, patches(count).observations) for count in (10, 12))
    with pytest.raises(ValueError, match=r"\(10, 3\) sets and views, expected \(12, 3\)"):
        spread_scores(few, real, real)
