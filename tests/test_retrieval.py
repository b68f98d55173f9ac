"""Partners: who finds whose, and how sure that is."""

import pytest
import torch

from shala_lite.datasets import load_dataset
from shala_lite.retrieval import Matcher, found_among, lower_bound
from shala_lite.training import fit


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def sphere(count, width=16):
    return torch.nn.functional.normalize(torch.randn(count, width, generator=rng()), dim=-1)


def test_a_point_finds_itself_and_a_stranger_one_in_the_pool():
    points = sphere(2000)
    assert found_among(points, points, 100, rng()).all()
    others = torch.nn.functional.normalize(torch.randn(2000, 16, generator=rng(1)), dim=-1)
    found = found_among(points, others, 20, rng())
    # Binomial, mean 0.05 and standard deviation 0.005.
    assert abs(found.double().mean() - 0.05) < 0.02


def test_a_constant_answer_is_never_found():
    points = sphere(50)
    assert not found_among(points, points[:1].expand(50, -1), 10, rng()).any()


def test_what_fills_no_pool_is_left_out_and_the_deal_is_of_the_generator():
    points, others = sphere(25), sphere(25).flip(0)
    assert len(found_among(points, others, 10, rng())) == 20
    same = [found_among(points, others, 10, rng(3)) for _ in range(2)]
    assert same[0].equal(same[1])


def test_refuses_what_does_not_fit():
    points = sphere(10)
    with pytest.raises(ValueError, match="expected one"):
        found_among(points, points[:5], 2, rng())
    for pool in (1, 11):
        with pytest.raises(ValueError, match=rf"pool: {pool}, expected 2 to 10"):
            found_among(points, points, pool, rng())


@pytest.mark.parametrize(
    ("share", "count", "low"), [(0.5, 100, 0.4038), (0.0, 10, 0.0), (1.0, 10, 0.7225)]
)
def test_the_lower_bound_is_that_of_wilson(share, count, low):
    assert lower_bound(share, count) == pytest.approx(low, abs=1e-4)


def test_the_lower_bound_refuses_no_trials():
    with pytest.raises(ValueError, match=r"share, count: 0\.5, 0"):
        lower_bound(0.5, 0)


def test_pictures_and_sentences_learn_to_find_each_other():
    train = load_dataset("cub", "train", size=1500)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        matcher = Matcher(train.modalities, widths=[8, 16, 16], text_width=16)
    before = share_of(matcher, train)
    options = dict(batch_size=64, learning_rate=4e-3, seed=0, progress=False)
    fit(matcher, train, steps=100, **options)
    assert share_of(matcher, train) > 2 * max(before, 0.05)
    with pytest.raises(ValueError, match="expected at least two"):
        Matcher(train.modalities[:1])


def share_of(matcher, data):
    """Share of partners found among 20."""
    a, b = (matcher.points(name, data.observations[name][:400]) for name in ("image", "sentence"))
    assert torch.allclose(a.norm(dim=1), torch.ones(400), atol=1e-4)
    return found_among(a, b, 20, rng()).double().mean().item()


def test_points_are_of_bytes_or_floats_alike_and_leave_the_mode():
    data = load_dataset("cub", "test", size=6)
    matcher = Matcher(data.modalities, widths=[4, 8], text_width=4)
    x = data.observations["image"]
    assert torch.allclose(matcher.points("image", x), matcher.points("image", x.float() / 255))
    assert matcher.training
