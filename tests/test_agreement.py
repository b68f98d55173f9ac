"""Agreement and variation, against plain loops and against what is known by symmetry."""

import pytest
import torch
from tiny_models import rng

from shala_lite import agreement, evaluation, metrics
from shala_lite.datasets import frames
from shala_lite.evaluation import Judged
from shala_lite.runs import check_metric


def test_total_variation_of_known_shares():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    assert agreement.total_variation(p, q).item() == pytest.approx(0.5)
    assert agreement.total_variation(p, p).item() == 0
    one, other = torch.eye(3)[:2]
    assert agreement.total_variation(one, other).item() == 1
    assert torch.equal(agreement.total_variation(p, q), agreement.total_variation(q, p))
    with pytest.raises(ValueError, match="as many values"):
        agreement.total_variation(p, q[:2])


def test_shares_are_counts():
    values = torch.tensor([[0, 0, 2, 1], [3, 3, 3, 3]])
    expected = torch.tensor([[0.5, 0.25, 0.25, 0], [0, 0, 0, 1]], dtype=torch.float64)
    assert torch.equal(agreement.shares(values, 4), expected)
    with pytest.raises(ValueError, match="of 3"):
        agreement.shares(values, 3)


def test_the_spread_is_the_mean_over_pairs_that_count():
    features = {name: torch.randn(5, 4, 3, generator=rng(k)) for k, name in enumerate("ab")}
    counted = {name: torch.rand(5, 4, generator=rng(9 + k)) < 0.7 for k, name in enumerate("ab")}
    means, all_means = [], []
    for name, phi in features.items():
        pairs = [
            ((phi[c, k] - phi[c, j]).norm().item(), bool(counted[name][c, k] & counted[name][c, j]))
            for c in range(5)
            for k in range(4)
            for j in range(k)
        ]
        kept = [d for d, both in pairs if both]
        assert 0 < len(kept) < len(pairs)
        means.append(sum(kept) / len(kept))
        all_means.append(sum(d for d, _ in pairs) / len(pairs))
    assert agreement.spread(features, counted) == pytest.approx(sum(means) / 2, rel=1e-6)
    assert agreement.spread(features) == pytest.approx(sum(all_means) / 2, rel=1e-6)


def test_one_answer_for_all_has_no_spread_and_scale_counts():
    phi = torch.randn(3, 1, 4, generator=rng())
    assert agreement.spread({"a": phi.expand(3, 6, 4)}) == 0
    some = torch.randn(3, 6, 4, generator=rng())
    doubled = agreement.spread({"a": 2 * some})
    assert doubled == pytest.approx(2 * agreement.spread({"a": some}))
    with pytest.raises(ValueError, match="K > 1"):
        agreement.spread({"a": phi})
    with pytest.raises(ValueError, match="no pair"):
        agreement.spread({"a": some}, {"a": torch.zeros(3, 6, dtype=torch.bool)})


def test_real_groups_hold_different_items_of_the_class():
    labels = torch.arange(60) % 5
    asked = torch.tensor([3, 0, 3])
    found = agreement.real_groups(labels, asked, 12, rng())
    assert torch.equal(labels[found], asked[:, None].expand(3, 12))
    assert all(len(row.unique()) == 12 for row in found)
    assert torch.equal(found, agreement.real_groups(labels, asked, 12, rng()))
    with pytest.raises(ValueError, match="12 of class 3, expected at least 13"):
        agreement.real_groups(labels, asked, 13, rng())


def scores(values, reference):
    return agreement.attribute_scores(values, reference, 4, generator=rng())


def test_samples_like_the_data_reach_the_floor():
    reference = torch.randint(4, (5000,), generator=rng())
    drawn = torch.randint(4, (400, 8), generator=rng(1))
    found = scores({"a": drawn, "b": drawn}, reference)
    assert found["attribute_agreement"] == 1
    assert found["attribute_distance@pooled"] < 0.03
    floor = found["attribute_distance@within_floor"]
    assert found["attribute_distance@within"] == pytest.approx(floor, abs=0.02)
    assert floor > 0.1  # eight draws are few
    for key in found:
        check_metric(f"prior/{key}", metrics.KEYS)


def test_one_answer_for_each_condition_is_seen_within_and_not_pooled():
    reference = torch.arange(4000) % 4
    stuck = (torch.arange(400) % 4)[:, None].expand(400, 8)
    found = scores({"a": stuck, "b": stuck}, reference)
    assert found["attribute_agreement"] == 1
    assert found["attribute_distance@pooled"] == pytest.approx(0)
    assert found["attribute_distance@within"] == pytest.approx(0.75)


def test_views_that_answer_apart_vary_and_do_not_agree():
    reference = torch.arange(4000) % 4
    apart = {name: torch.randint(4, (400, 8), generator=rng(k)) for k, name in enumerate("abc")}
    found = scores(apart, reference)
    assert found["attribute_agreement"] == pytest.approx(1 / 16, abs=0.02)
    assert found["attribute_agreement@independent"] == pytest.approx(1 / 16)
    floor = found["attribute_distance@within_floor"]
    assert found["attribute_distance@within"] == pytest.approx(floor, abs=0.02)


def test_blocks_of_answers_are_compared_within_their_condition():
    features = torch.randn(3 * 5, 4, generator=rng())  # three answers to each of five conditions
    truth, labels = torch.arange(5).repeat(3), torch.arange(5).repeat(3)
    labels[7], hidden = 9, torch.ones(15, 1, dtype=torch.bool)
    hidden[13] = False
    seen = Judged({"a": labels}, {"a": features})
    kept = [n for n in range(15) if n not in (7, 13)]
    pairs = [(i, j) for i in kept for j in kept if i < j and i % 5 == j % 5]
    expected = sum((features[i] - features[j]).norm().item() for i, j in pairs) / len(pairs)
    found = agreement.spread_of_right(seen, truth, 3, hidden)
    assert found == pytest.approx(expected, rel=1e-6)
    labels[7] = truth[7]
    whole = {"a": features.reshape(3, 5, 4).transpose(0, 1)}
    assert agreement.spread_of_right(seen, truth, 3) == pytest.approx(agreement.spread(whole))
    with pytest.raises(ValueError, match="to divide 15"):
        agreement.spread_of_right(seen, truth, 4)


def test_frames_are_scored_by_their_nearest_colours():
    reference = torch.arange(400) % 4
    paint = torch.tensor(frames.RGB) / 255
    colour = torch.randint(4, (8, 300), generator=rng()).flatten()
    images = paint[colour][:, :, None, None].expand(-1, 3, 8, 8)
    found = agreement.frame_scores({"a": images, "b": images}, reference, 8, generator=rng())
    values = {name: colour.reshape(8, 300).T for name in "ab"}
    assert found == {**scores(values, reference), "attribute_blur": 0}
    grey = agreement.frame_scores({"a": images * 0 + 0.5}, reference, 8, generator=rng())
    assert grey["attribute_blur"] == pytest.approx(0.5)
    assert grey["attribute_distance@pooled"] == pytest.approx(0.75)


def test_answers_are_scored_by_the_metrics_of_the_book():
    features = {n: torch.randn(60, 4, generator=rng(k)) for k, n in enumerate("ab")}
    labels = {n: torch.randint(3, (60,), generator=rng(5 + k)) for k, n in enumerate("ab")}
    seen, truth = Judged(labels, features), torch.arange(20).repeat(3) % 3
    given = torch.tensor([True, False]).expand(60, 2)
    real = Judged(labels, {n: torch.randn(60, 4, generator=rng(9)) for n in "ab"})
    found = agreement.answer_scores(seen, real, truth, given, 3, scale=2.0)
    assert found["conditional_coherence"] == metrics.accuracy(labels["b"], truth)
    right_of_b = Judged({"b": labels["b"]}, {"b": features["b"]})
    assert found["diversity_ratio"] == agreement.spread_of_right(right_of_b, truth, 3) / 2
    assert found["recall"] == evaluation.joint_scores(seen, real)["recall"]
    for key in found:
        check_metric(f"prior/{key}", metrics.KEYS)
