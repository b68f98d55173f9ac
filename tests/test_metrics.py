import math

import pytest
import torch

from shala_lite import metrics, runs

LISTED = """conditional_coherence unconditional_coherence pairwise_coherence class_entropy
frechet_judge fid precision recall c2st_auc mmd kl_aggregated_prior log_likelihood hull_score nfe
seconds peak_memory_mib items_per_second""".split()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def labels(*rows):
    return {f"m{m}": torch.tensor(row) for m, row in enumerate(rows)}


def random_labels(modalities=5, n=20_000, seed=0):
    drawn = torch.randint(10, (modalities, n), generator=generator(seed))
    return {f"m{m}": row for m, row in enumerate(drawn)}


def test_every_key_of_the_design_has_a_unit_and_a_direction():
    assert set(LISTED) <= set(metrics.KEYS)
    for key, entry in metrics.KEYS.items():
        assert entry.unit, key
        assert entry.direction in ("higher", "lower", "neither"), key
        runs.check_metric(f"prior/{key}@2_sources", metrics.KEYS)


def test_conditional_coherence_of_a_hand_made_table():
    truth = torch.tensor([0, 1, 2, 3])
    table = {
        "a": {"a": torch.tensor([9, 9, 9, 9]), "b": torch.tensor([0, 1, 2, 9])},  # 3 of 4
        "b": {"a": torch.tensor([0, 9, 9, 9]), "b": truth},  # 1 of 4
    }
    found = metrics.conditional_coherence(table, truth)
    assert found.names == ("a", "b")
    assert found.mean == pytest.approx((0.75 + 0.25) / 2)  # self-reconstruction is left out
    assert found.matrix.tolist() == [[0.0, 0.75], [0.25, 1.0]]


def test_conditional_coherence_needs_every_pair_and_leaves_the_diagonal_empty():
    truth = torch.tensor([0, 1])
    found = metrics.conditional_coherence({"a": {"b": truth}, "b": {"a": truth}}, truth)
    assert found.mean == 1
    assert found.matrix.diagonal().isnan().all()
    with pytest.raises(ValueError, match="lack 'a' generated from 'b'"):
        metrics.conditional_coherence({"a": {"b": truth}, "b": {"b": truth}}, truth)
    with pytest.raises(ValueError, match="at least two"):
        metrics.conditional_coherence({"a": {"a": truth}}, truth)


def test_coherence_of_absent_counts_only_what_was_not_given():
    given = torch.tensor([[True, False, False], [False, True, False]])
    judged = labels([9, 1], [0, 9], [0, 9])  # truth 0 and 1; what was given is judged wrong
    found = metrics.coherence_of_absent(judged, torch.tensor([0, 1]), given)
    assert found == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="true everywhere"):
        metrics.coherence_of_absent(judged, torch.tensor([0, 1]), torch.ones(2, 3).bool())
    with pytest.raises(ValueError, match=r"expected \(2, 3\)"):
        metrics.coherence_of_absent(judged, torch.tensor([0, 1]), given.T)


def test_one_source_alone_agrees_between_the_two_forms():
    judged, truth = random_labels(3, 500), random_labels(1, 500, seed=1)["m0"]
    given = torch.zeros(500, 3, dtype=torch.bool)
    given[:, 0] = True
    by_pair = [metrics.accuracy(judged[name], truth) for name in ("m1", "m2")]
    assert metrics.coherence_of_absent(judged, truth, given) == pytest.approx(sum(by_pair) / 2)


@pytest.mark.parametrize("size", [0, 1, 3, 5])
def test_random_subsets_have_their_size_and_favour_nobody(size):
    drawn = metrics.random_subsets(20_000, 5, size, generator())
    assert (drawn.sum(1) == size).all()
    share = drawn.double().mean(0)
    assert (share - size / 5).abs().max() < 5 * math.sqrt(0.25 / 20_000)
    assert torch.equal(drawn, metrics.random_subsets(20_000, 5, size, generator()))


def test_random_subsets_refuse_an_impossible_size():
    with pytest.raises(ValueError, match="size is 6; expected 0 to 5"):
        metrics.random_subsets(3, 5, 6, generator())


def test_all_agree_and_pairwise_by_hand():
    judged = labels([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 9, 6])
    assert metrics.sets_agree(judged).tolist() == [True, True, False, False]
    assert metrics.unconditional_coherence(judged) == 0.5
    assert metrics.pairwise_coherence(judged) == pytest.approx((3 + 3 + 1 + 0) / 12)


def test_a_collapsed_generator_agrees_with_itself_and_has_no_entropy():
    collapsed = labels(*[[7] * 50] * 5)
    scores = metrics.set_scores(collapsed)
    assert scores["unconditional_coherence"] == scores["pairwise_coherence"] == 1
    assert scores["class_entropy"] == 0


def test_a_generator_that_collapses_differently_per_modality_has_no_entropy_either():
    assert metrics.class_entropy(labels([1] * 9, [2] * 9, [3] * 9)) == 0


def test_entropy_of_uniform_classes_is_log_ten():
    assert metrics.class_entropy(labels(list(range(10)) * 3)) == pytest.approx(math.log(10))
    with pytest.raises(ValueError, match="classes is 3, yet a label is 5"):
        metrics.class_entropy(labels([5]), classes=3)


def test_independent_modalities_meet_their_floor():
    judged = random_labels(2, 50_000)
    floor = metrics.independent_coherence(judged)
    assert floor == pytest.approx(0.1, abs=0.005)
    assert metrics.unconditional_coherence(judged) == pytest.approx(floor, abs=0.007)
    # More modalities agree less by chance, though pairs agree as often.
    many = random_labels(5, 50_000)
    assert metrics.independent_coherence(many) < 2e-4
    assert metrics.pairwise_coherence(many) == pytest.approx(0.1, abs=0.005)


def test_the_order_of_modalities_is_irrelevant():
    judged = labels([1, 2, 3, 3], [1, 2, 3, 5], [1, 9, 3, 5])
    turned = dict(reversed(judged.items()))
    assert metrics.set_scores(judged) == pytest.approx(metrics.set_scores(turned))


def test_chance_is_the_commonest_class():
    assert metrics.chance(torch.tensor([0, 0, 0, 1])) == 0.75


def test_rescaled_maps_floor_and_ceiling_to_zero_and_one():
    assert metrics.rescaled(0.1, floor=0.1, ceiling=0.9) == 0
    assert metrics.rescaled(0.9, floor=0.1, ceiling=0.9) == 1
    assert metrics.rescaled(2.0, floor=3.0, ceiling=1.0) == 0.5
    with pytest.raises(ValueError, match=r"both 0\.5"):
        metrics.rescaled(0.4, floor=0.5, ceiling=0.5)


@pytest.mark.parametrize("wrong", [{}, labels([1, 2], [1]), labels([]), labels([[1], [2]])])
def test_tables_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="predictions"):
        metrics.unconditional_coherence(wrong)
    with pytest.raises(ValueError, match="predictions"):
        metrics.class_entropy(wrong)


def test_pairs_need_two():
    with pytest.raises(ValueError, match="at least two"):
        metrics.pairwise_coherence(labels([1, 2]))


def test_accuracy_refuses_other_lengths():
    with pytest.raises(ValueError, match=r"expected labels' \(3,\)"):
        metrics.accuracy(torch.tensor([1, 2]), torch.tensor([1, 2, 3]))


def test_bootstrap_interval_is_as_wide_as_theory_says():
    a = torch.randn(4_000, generator=generator(1), dtype=torch.float64)
    b = torch.randn(4_000, generator=generator(2), dtype=torch.float64) - 0.3
    found = metrics.paired_bootstrap_interval(a, b, generator=generator())
    assert found.difference == pytest.approx((a - b).mean().item())
    half = 1.96 * (a - b).std().item() / math.sqrt(4_000)
    assert found.low == pytest.approx(found.difference - half, abs=half / 6)
    assert found.high == pytest.approx(found.difference + half, abs=half / 6)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        noise = torch.randn(2, 100, generator=generator(seed))
        found = metrics.paired_bootstrap_interval(
            noise[0] + 0.2, noise[1], generator=generator(seed), resamples=300, level=0.8
        )
        covered += found.low <= 0.2 <= found.high
    assert 0.70 <= covered / 200 <= 0.90


def test_pairing_removes_what_two_settings_share():
    shared = 10 * torch.randn(500, generator=generator())
    a = shared + 0.1 * torch.randn(500, generator=generator(1)) + 0.05
    found = metrics.paired_bootstrap_interval(a, shared, generator=generator())
    assert 0 < found.low < 0.05 < found.high
    shuffled = metrics.paired_bootstrap_interval(
        a, shared[torch.randperm(500, generator=generator(2))], generator=generator()
    )
    assert shuffled.low < 0 < shuffled.high


def test_bootstrap_is_the_same_for_the_same_generator_and_swaps_sign():
    a, b = torch.rand(2, 300, generator=generator())
    one = metrics.paired_bootstrap_interval(a, b, generator=generator())
    again = metrics.paired_bootstrap_interval(a, b, generator=generator())
    turned = metrics.paired_bootstrap_interval(b, a, generator=generator())
    assert one == again
    assert turned == pytest.approx((-one.difference, -one.high, -one.low))


def test_bootstrap_refuses_what_is_not_paired():
    with pytest.raises(ValueError, match="expected one"):
        metrics.paired_bootstrap_interval(torch.rand(3), torch.rand(4), generator=generator())
    with pytest.raises(ValueError, match="level is 95"):
        metrics.paired_bootstrap_interval(
            torch.rand(3), torch.rand(3), generator=generator(), level=95
        )
