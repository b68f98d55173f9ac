"""Probes and neighbours, on latents in which it is known what can be read."""

import pytest
import torch
from tiny_models import rng

from shala_lite import metrics
from shala_lite.probes import few_of_each, neighbour_agreement, probe, silhouette, source_agreement

LABELS = torch.arange(300) % 3
CENTRES = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


def clusters(seed=0, spread=0.5):
    return CENTRES[LABELS] + spread * torch.randn(300, 2, generator=rng(seed))


def rings(seed=0):
    """Three rings around one point: neighbours know them, planes do not."""
    angle = 6.2832 * torch.rand(300, generator=rng(seed))
    return (1 + 3 * LABELS[:, None]) * torch.stack([angle.cos(), angle.sin()], 1)


def score(kind, train, test, labels_per_class=20, seed=0):
    options = dict(labels_per_class=labels_per_class, generator=rng(seed))
    return probe(kind, (train, LABELS), (test, LABELS), **options)


@pytest.mark.parametrize("kind", ["linear", "neighbours"])
def test_a_probe_reads_clusters_and_nothing_from_noise(kind):
    assert score(kind, clusters(), clusters(1)) == (1.0, 1.0)
    noise = score(
        kind, torch.randn(300, 2, generator=rng(3)), torch.randn(300, 2, generator=rng(4))
    )
    assert abs(noise.accuracy - 1 / 3) < 0.12


def test_planes_cannot_tell_rings_apart_and_neighbours_can():
    assert score("linear", rings(), rings(1)).accuracy < 0.6
    assert score("neighbours", rings(), rings(1)).accuracy > 0.95


def test_a_class_that_is_never_found_costs_macro_f1_more_than_accuracy():
    rare = torch.cat([torch.zeros(290), torch.ones(10)]).long()
    z = torch.zeros(300, 1)
    found = probe("linear", (z, rare), (z, rare), labels_per_class=300, generator=rng())
    assert found.accuracy == pytest.approx(290 / 300)
    assert found.macro_f1 < 0.5


def test_more_labels_help():
    far = clusters(spread=4.0), clusters(1, spread=4.0)
    few, many = (
        sum(score("linear", *far, count, seed).accuracy for seed in range(8)) / 8
        for count in (1, 80)
    )
    assert many > few + 0.05


def test_few_of_each_are_that_many_of_every_class_and_depend_on_the_generator():
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 20)
    at = few_of_each(labels, 5, rng())
    assert labels[at].bincount().tolist() == [5, 3, 5]
    assert len(at.unique()) == len(at)
    assert torch.equal(at, few_of_each(labels, 5, rng()))
    assert not torch.equal(at, few_of_each(labels, 5, rng(1)))


def test_neighbours_agree_in_clusters_and_by_chance_in_noise(monkeypatch):
    monkeypatch.setattr("shala_lite.probes.CHUNK", 70)
    assert neighbour_agreement(clusters(), LABELS) == 1.0
    assert abs(neighbour_agreement(torch.randn(300, 2, generator=rng()), LABELS) - 1 / 3) < 0.06


def test_a_point_is_not_its_own_neighbour():
    z = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    assert neighbour_agreement(z, torch.tensor([0, 1, 0, 1]), k=1) == 0.0


def test_sources_agree_where_they_share_a_place_and_not_where_each_has_its_own():
    here = {"a": clusters(), "b": clusters(1)}
    assert source_agreement(here, LABELS) == 1.0
    # b's classes are moved around: each source is still in perfect order by itself
    turned = {"a": clusters(), "b": clusters(1).flip(1)}
    assert neighbour_agreement(turned["b"], LABELS) == 1.0
    assert source_agreement(turned, LABELS) == pytest.approx(1 / 3, abs=0.02)


def test_one_item_from_several_sources_is_no_neighbour_of_itself():
    z = torch.randn(300, 2, generator=rng())
    same = {"a": z, "b": z + 1e-3, "c": z - 1e-3}
    assert abs(source_agreement(same, LABELS) - 1 / 3) < 0.06


def test_the_silhouette_is_high_for_clusters_and_about_zero_for_noise():
    assert silhouette(clusters(), LABELS) > 0.8
    assert abs(silhouette(torch.randn(300, 2, generator=rng()), LABELS)) < 0.1


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"kind: 'round', expected one of \['linear'"):
        score("round", clusters(), clusters())
    with pytest.raises(ValueError, match="labels_per_class: 0, expected at least 1"):
        score("linear", clusters(), clusters(), 0)
    with pytest.raises(ValueError, match=r"lengths \{'a': 300, 'b': 7\} and 300"):
        source_agreement({"a": clusters(), "b": clusters()[:7]}, LABELS)
    with pytest.raises(ValueError, match="k is 300"):
        neighbour_agreement(clusters(), LABELS, 300)


def test_what_probes_say_can_be_recorded():
    keys = {"probe_accuracy", "probe_macro_f1", "neighbour_agreement", "source_agreement"}
    assert keys | {"silhouette"} <= metrics.KEYS.keys()
