"""Two-sample tests, on pairs of distributions of which it is known whether they differ."""

import math

import pytest
import torch
from tiny_models import rng

from shala_lite import metrics, two_sample
from shala_lite.two_sample import (
    TwoSampleTest,
    check_latents,
    fit_classifier,
    mmd,
    nearest_distance,
    shifted,
    shuffled,
    two_sample_auc,
    two_sample_test,
)


def normal(n=1000, width=8, seed=0):
    return torch.randn(n, width, generator=rng(seed))


def correlated(n=1000, width=8, seed=0):
    """All dimensions share half their variance; each alone is standard normal."""
    generator = rng(seed)
    shared = torch.randn(n, 1, generator=generator)
    return (shared + torch.randn(n, width, generator=generator)) / math.sqrt(2)


def auc(a, b, seed=0, **options):
    return two_sample_auc(a, b, generator=rng(seed), **options)


@pytest.mark.parametrize("seed", range(3))
def test_equal_distributions_cannot_be_told_apart(seed):
    found = auc(normal(seed=2 * seed + 10), normal(seed=2 * seed + 11), seed)
    assert abs(found - 0.5) < 3 / math.sqrt(6 * 1000)


def test_the_area_grows_with_the_shift_and_ends_at_one():
    areas = [auc(normal(), normal(seed=1) + by) for by in (0.0, 0.3, 3.0)]
    assert areas == sorted(areas)
    assert areas[0] < 0.55 < 0.58 < areas[1]
    assert areas[2] > 0.999


def test_the_area_is_near_what_the_best_test_reaches():
    # One direction by one standard deviation: Phi(1 / sqrt 2), and no test is better.
    best = 0.5 * (1 + math.erf(0.5))
    found = auc(normal(2500, 32), shifted(normal(2500, 32, seed=1), rng(2)))
    assert best - 0.05 < found < best + 3 / math.sqrt(6 * 2500)


def test_dependence_is_seen_and_so_is_scale():
    assert auc(correlated(), shuffled(correlated(seed=1), rng())) > 0.65
    assert auc(normal(), 1.3 * normal(seed=1)) > 0.6


def test_the_area_depends_on_the_generator_and_leaves_the_global_state_alone(monkeypatch):
    monkeypatch.setattr("shala_lite.two_sample.STEPS", 50)
    before = torch.get_rng_state()
    a, b = normal(200), normal(200, seed=1) + 0.2
    assert auc(a, b, seed=3) == auc(a, b, seed=3) != auc(a, b, seed=4)
    assert torch.equal(before, torch.get_rng_state())


def test_units_do_not_matter_and_rows_are_cut_to_the_smaller_side(monkeypatch):
    monkeypatch.setattr("shala_lite.two_sample.STEPS", 50)
    a, b = normal(300).double(), normal(300, seed=1).double() + 0.3
    units = torch.logspace(-2, 2, 8)
    assert auc(a * units + 7, b * units + 7) == pytest.approx(auc(a, b), abs=0.01)
    sizes, real_fit = [], two_sample.fit_classifier

    def noted(x, y, g):
        sizes.append((len(x), len(y)))
        return real_fit(x, y, g)

    monkeypatch.setattr(two_sample, "fit_classifier", noted)
    auc(a, normal(5000, seed=1), rows=200)
    auc(a, normal(5000, seed=1))
    assert sizes == [(100, 100)] * 2 + [(150, 150)] * 2


def test_the_classifier_learns_the_log_ratio_of_densities():
    # N(1, 1) against N(0, 1): the logit is z - 1/2.
    logit = fit_classifier(normal(3000, 1) + 1, normal(3000, 1, seed=1), rng())
    z = torch.linspace(-1, 2, 7)[:, None]
    assert (logit(z) - (z[:, 0] - 0.5)).abs().max() < 0.25
    assert not logit(z).requires_grad


def test_the_full_test_passes_its_own_checks_and_sees_a_hole():
    parts = (correlated(seed=seed) for seed in (0, 1))
    found = two_sample_test(next(parts), normal(1200), next(parts), generator=rng())
    assert found.rows == 1000
    assert found.strong_enough
    assert abs(found.control - 0.5) < 3 / math.sqrt(6 * 1000)
    assert min(found.auc, found.sensitivity, found.dependence) > 0.65


def test_independent_dimensions_have_no_dependence_to_see():
    found = auc(normal(), shuffled(normal(seed=1), rng()))
    assert abs(found - 0.5) < 3 / math.sqrt(6 * 1000)


def test_a_test_is_weak_if_it_misses_the_shift_or_sees_what_is_not_there():
    good = TwoSampleTest(0.9, 0.51, 0.7, 0.8, 2500)
    assert good.strong_enough
    assert not good._replace(sensitivity=0.64).strong_enough
    assert not good._replace(control=0.56).strong_enough
    assert not good._replace(control=0.44).strong_enough
    assert good._replace(control=0.56, rows=200).strong_enough  # within chance


def test_a_shift_is_one_standard_deviation_long_and_shuffling_keeps_each_dimension():
    z = 5 + 3 * normal(400)
    moved = (shifted(z, rng()) - z) / z.std(0)
    assert torch.allclose(moved.norm(dim=1), torch.ones(400), atol=1e-4)
    mixed = shuffled(correlated(2000), rng())
    assert torch.equal(mixed.sort(0).values, correlated(2000).sort(0).values)
    assert torch.corrcoef(mixed.T).fill_diagonal_(0).abs().max() < 0.1


def brute_force(a, b):
    """Squared discrepancy by its definition, one pair at a time."""
    pool = [*a, *b]
    distances = sorted(
        (pool[i] - pool[j]).norm().item() for i in range(len(pool)) for j in range(i)
    )
    h = distances[(len(distances) - 1) // 2]

    def mean(xs, ys, same):
        values = [
            math.exp(-((x - y).norm().item() ** 2) / (2 * h**2))
            for i, x in enumerate(xs)
            for j, y in enumerate(ys)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


def test_the_discrepancy_is_that_of_a_double_loop():
    a, b = normal(7, 3).double(), normal(5, 3, seed=1).double() + 0.7
    found = mmd(a, b, generator=rng())
    assert found.mmd == pytest.approx(brute_force(a, b))
    # Swapping the sets changes nothing but rounding.
    assert mmd(b, a, generator=rng()).mmd == pytest.approx(found.mmd)


def test_p_values_are_uniform_on_equal_distributions():
    found = [
        mmd(normal(60, 4, seed), normal(60, 4, 500 + seed), generator=rng(seed), permutations=99)
        for seed in range(80)
    ]
    p = torch.tensor([each.p_value for each in found])
    # 80 uniform numbers: mean 1/2 +- 3 * 0.032, and 4 of them below 0.05 (more than 10: 0.3%).
    assert abs(p.mean() - 0.5) < 0.1
    assert (p <= 0.05).sum() <= 10
    # Unbiased: the mean is zero within three standard errors.
    values = torch.tensor([each.mmd for each in found])
    assert values.mean().abs() < 3 * values.std() / math.sqrt(80)


def test_p_values_are_as_small_as_they_can_be_on_different_distributions():
    for seed in range(3):
        found = mmd(normal(300, 4, seed), normal(200, 4, 9 + seed) + 0.5, generator=rng(seed))
        assert found.p_value == pytest.approx(1 / 201)
        assert found.mmd > 0.01


def test_the_discrepancy_takes_some_rows_and_survives_points_that_coincide():
    assert mmd(normal(90), normal(90, seed=1), generator=rng(), rows=50).mmd != pytest.approx(
        mmd(normal(90), normal(90, seed=1), generator=rng()).mmd
    )
    same = mmd(torch.ones(9, 2), torch.ones(8, 2), generator=rng())
    assert same.mmd == pytest.approx(0, abs=1e-12)
    assert same.p_value == 1


def test_distance_to_the_nearest_shows_what_was_memorised(monkeypatch):
    train = 3 + 2 * normal(500, 4).double()
    z = torch.cat([train[:5] + 1e-4, 3 + 2 * normal(95, 4, seed=1)])
    units = train.std(0, unbiased=False)
    direct = torch.stack([((row - train) / units).norm(dim=1).min() for row in z])
    monkeypatch.setattr("shala_lite.two_sample.ROWS", 33)
    found = nearest_distance(z, train)
    assert torch.allclose(found, direct, atol=1e-6)
    assert found[:5].max() < 2e-4 < 0.05 < found[5:].min()


def test_a_dimension_that_never_varies_has_a_distance_all_the_same():
    train = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    assert nearest_distance(torch.tensor([[0.0, 4.0]]), train).tolist() == [3.0]


def test_arguments_out_of_range_are_named():
    broken = normal(200)
    broken[3, 1] = torch.nan
    with pytest.raises(ValueError, match="fake has 1 numbers that are not finite"):
        auc(normal(200), broken)
    with pytest.raises(ValueError, match=r"'fake': \(200, 7\)}; expected one width"):
        auc(normal(200), normal(200, 7))
    with pytest.raises(ValueError, match="N at least 100"):
        auc(normal(99), normal(200))
    with pytest.raises(ValueError, match="N at least 2"):
        mmd(normal(1), normal(9), generator=rng())
    with pytest.raises(ValueError, match="permutations: 0, expected at least 1"):
        mmd(normal(9), normal(9), generator=rng(), permutations=0)
    with pytest.raises(ValueError, match=r"\(8,\)"):
        nearest_distance(normal(5)[0], normal(5))
    with pytest.raises(ValueError, match="train"):
        two_sample_test(normal(200), normal(200), broken, generator=rng())


def test_latents_are_detached_and_in_double_precision():
    (z,) = check_latents(1, z=normal(3).requires_grad_())
    assert z.dtype == torch.float64
    assert not z.requires_grad


def test_what_is_measured_can_be_recorded():
    assert {"c2st_auc", "mmd", "mmd_p_value", "nearest_distance"} <= metrics.KEYS.keys()
