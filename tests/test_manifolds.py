import math

import pytest
import torch

from shala_lite import manifolds
from shala_lite.manifolds import (
    feature_scores,
    frechet_between_gaussians,
    frechet_distance,
    paired_frechet_ratio,
    precision_recall,
)


def normal(n, d, seed=0):
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn


def rotation(d, seed=0):
    return torch.linalg.qr(normal(d, d, seed)).Q


def exactly(features, mean, factor):
    """Features whose sample mean and covariance are exactly `mean` and factor factor^T."""
    centred = features - features.mean(0)
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(torch.cov(centred.T)), centred.T, upper=False
    ).T
    return whitened @ factor.T + mean


def test_frechet_of_features_with_known_moments_matches_the_closed_form():
    # With commuting covariances tr((A^1/2 B A^1/2)^1/2) = sum of sqrt(a_i b_i).
    turn = rotation(5)
    a, b = torch.tensor([4.0, 1.0, 0.25, 9.0, 2.0]), torch.tensor([1.0, 1.0, 4.0, 0.01, 3.0])
    mean_a, mean_b = normal(2, 5, seed=3)
    features_a = exactly(normal(200, 5, 1), mean_a, turn @ a.sqrt().diag().double())
    features_b = exactly(normal(300, 5, 2), mean_b, turn @ b.sqrt().diag().double())
    expected = (mean_a - mean_b).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(features_a, features_b) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_of_gaussians_that_do_not_commute_matches_the_optimal_map():
    # The map T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 carries N(0, A) to N(0, B) at the least cost.
    factor = normal(4, 4, 1)
    a = factor @ factor.T + torch.eye(4)
    spread = normal(4, 4, 2)
    transport = spread @ spread.T + 0.1 * torch.eye(4)  # symmetric positive: a gradient of convex
    b = transport @ a @ transport
    cost = (transport - torch.eye(4)) @ a @ (transport - torch.eye(4))
    zero = torch.zeros(4)
    found = frechet_between_gaussians(zero, a, zero, b)
    assert found == pytest.approx(cost.trace().item(), rel=1e-9)


def test_frechet_is_zero_for_equal_sets_symmetric_and_blind_to_a_common_rotation():
    a, b = normal(300, 6, 1) * torch.arange(1, 7), normal(200, 6, 2) + 1
    there = frechet_distance(a, b)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert there > 1
    assert frechet_distance(b, a) == pytest.approx(there, rel=1e-9)
    turn = rotation(6, seed=4)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(there, rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * there, rel=1e-9)


def test_frechet_survives_singular_covariances_and_float32():
    few = normal(4, 64, 1)  # rank 3 in 64 dimensions
    other = normal(5, 64, 2)
    found = frechet_distance(few, other)
    assert math.isfinite(found)
    assert found > 0
    assert frechet_distance(few.float(), other.float()) == pytest.approx(found, rel=1e-4)
    constant = torch.zeros(10, 3)
    assert frechet_distance(constant, constant + 2) == pytest.approx(12)


def test_same_set_has_precision_and_recall_one():
    points = normal(500, 8)
    assert precision_recall(points, points) == (1, 1)
    assert precision_recall(points, points.flip(0), k=5) == (1, 1)


def test_disjoint_sets_have_precision_and_recall_zero():
    points = normal(300, 8)
    assert precision_recall(points, points + 100) == (0, 0)


def test_mode_collapse_keeps_precision_and_loses_recall():
    centres = 30 * torch.eye(4, dtype=torch.float64)
    real = (normal(400, 4, 1).reshape(4, 100, 4) + centres[:, None]).reshape(400, 4)
    one_mode = real[:100] + 0.01 * normal(100, 4, 2)
    found = precision_recall(real, one_mode)
    assert found.precision > 0.95
    assert found.recall == pytest.approx(0.25, abs=0.03)


def test_noise_loses_precision_and_keeps_recall():
    real, fake = normal(400, 2, 1), 6 * normal(800, 2, 2)
    found = precision_recall(real, fake)
    assert found.recall > 0.9
    assert found.precision < 0.3


def test_swapping_real_and_fake_swaps_precision_and_recall():
    a, b = normal(200, 3, 1), 1.5 * normal(300, 3, 2)
    there, back = precision_recall(a, b), precision_recall(b, a)
    assert (there.precision, there.recall) == (back.recall, back.precision)


def test_precision_and_recall_match_the_definition_written_out(monkeypatch):
    monkeypatch.setattr(manifolds, "ROWS", 7)  # several chunks, the last one short
    real, fake = normal(40, 2, 1), normal(53, 2, 2) + 0.7

    def share(points, centres, k):
        inside = 0
        for point in points:
            for i, centre in enumerate(centres):
                others = torch.cat([centres[:i], centres[i + 1 :]])
                radius = (others - centre).norm(dim=1).sort().values[k - 1]
                if (point - centre).norm() <= radius:
                    inside += 1
                    break
        return inside / len(points)

    found = precision_recall(real, fake, k=3)
    assert found.precision == pytest.approx(share(fake, real, 3))
    assert found.recall == pytest.approx(share(real, fake, 3))
    assert 0 < found.precision < 1


def test_near_copies_empty_a_manifold():
    once, fake = normal(100, 3, 1), normal(100, 3, 2)
    copies = once.repeat(5, 1) + 1e-6 * normal(500, 3, 3)
    assert precision_recall(once, fake).precision > 0.7
    assert precision_recall(copies, fake).precision < 0.05
    five = {"m0": torch.cat([once] * 5)}
    alone = precision_recall(once, fake)
    scores = feature_scores(five, {"m0": fake}, distinct=100)
    assert (scores["precision"], scores["recall"]) == alone


def test_points_far_from_the_origin_keep_their_neighbours():
    real, fake = normal(300, 4, 1), normal(300, 4, 2)
    near, far = precision_recall(real, fake), precision_recall(real + 1e5, fake + 1e5)
    assert far == pytest.approx(near)


def test_feature_scores_average_over_modalities_under_registered_keys():
    real = {"m0": normal(100, 3, 1), "m1": normal(100, 3, 2)}
    fake = {"m1": normal(100, 3, 4) + 50, "m0": real["m0"]}
    scores = feature_scores(real, fake)
    assert scores["precision"] == scores["recall"] == 0.5
    assert scores["precision@m0"] == 1
    assert scores["frechet_judge@m0"] == pytest.approx(0, abs=1e-9)
    assert scores["frechet_judge"] == pytest.approx(scores["frechet_judge@m1"] / 2)
    some = feature_scores(real, fake, distinct=20)
    assert some["precision@m1"] == 0
    assert some["frechet_judge"] == scores["frechet_judge"]
    with pytest.raises(ValueError, match="expected equal"):
        feature_scores(real, {"m0": real["m0"]})


def test_features_that_do_not_fit_are_refused():
    points = normal(10, 3)
    with pytest.raises(ValueError, match="widths 3 and 4"):
        frechet_distance(points, normal(10, 4))
    with pytest.raises(ValueError, match="N >= 2"):
        frechet_distance(points, points[:1])
    with pytest.raises(ValueError, match="second features are not all finite"):
        frechet_distance(points, points / 0)
    with pytest.raises(ValueError, match="N >= 11"):
        precision_recall(points, points, k=10)
    with pytest.raises(ValueError, match="k is 0"):
        precision_recall(points, points, k=0)


# Two settings of one model, paired


def settings(n=400, worse=0.5, seed=0):
    """Real features, those of a setting b, and a: b's rows, moved farther off."""
    real = {name: normal(500, 4, seed + i) for i, name in enumerate(("m0", "m1"))}
    b = {name: normal(n, 4, seed + 2 + i) + 0.5 for i, name in enumerate(real)}
    return real, {name: x + worse for name, x in b.items()}, b


def ratio_of(real, a, b, seed=0, **options):
    return paired_frechet_ratio(
        real, a, b, generator=torch.Generator().manual_seed(seed), **{"resamples": 50, **options}
    )


def test_equal_sets_have_the_ratio_one_exactly():
    real, _, b = settings()
    assert ratio_of(real, b, b) == (1, 1, 1)


def test_the_ratio_is_that_of_the_mean_distances_and_lies_within_its_interval():
    real, a, b = settings()
    far = [sum(frechet_distance(real[name], side[name]) for name in real) for side in (a, b)]
    found = ratio_of(real, a, b)
    assert found.ratio == pytest.approx(far[0] / far[1], rel=1e-9)
    assert 1 < found.low < found.ratio < found.high


def test_swapping_the_settings_inverts_the_ratio_and_its_ends():
    real, a, b = settings()
    there, back = ratio_of(real, a, b), ratio_of(real, b, a)
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))


def test_the_interval_narrows_with_more_rows_and_a_lower_level():
    def width(n, **options):
        found = ratio_of(*settings(n), **options)
        return math.log(found.high / found.low)

    assert width(3200, resamples=200) < 0.6 * width(200, resamples=200)
    assert width(400, level=0.5) < width(400, level=0.95)


def test_pairing_narrows_the_interval():
    real, a, b = settings()
    mixed = {name: x[torch.randperm(len(x), generator=torch.Generator())] for name, x in a.items()}
    paired, apart = ratio_of(real, a, b), ratio_of(real, mixed, b)
    assert apart.ratio == pytest.approx(paired.ratio)
    assert math.log(paired.high / paired.low) < 0.8 * math.log(apart.high / apart.low)


def test_what_is_not_paired_has_no_ratio():
    real, a, b = settings(20)
    less = {name: x[:-1] for name, x in a.items()}
    broken = {name: x * torch.nan for name, x in a.items()}
    same = {name: torch.zeros(20, 4) for name in real}
    for wrong, message in (
        ((real, less, b), "rows"),
        ((real, {"m0": a["m0"]}, b), "modalities"),
        (({}, {}, {}), "modalities"),
        ((real, broken, b), "finite"),
        ((same, a, same), "b is at distance 0"),
        ((same, same, b), "a is at distance 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ratio_of(*wrong)
    for options, message in (({"level": 1.0}, "level"), ({"resamples": 1}, "resamples")):
        with pytest.raises(ValueError, match=message):
            ratio_of(real, a, b, **options)
