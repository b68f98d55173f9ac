"""The matcher of views: what it is trained on, and when a view counts as found."""

import pytest
import torch

from shala_lite.datasets import MultimodalDataset
from shala_lite.modalities import Modality
from shala_lite.training import fit
from shala_lite.view_matcher import ViewGroups, ViewMatcher, same_object
from shala_lite.view_sets import shuffled

VIEWS, SHAPE = 4, (4, 8, 8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def objects(count, seed=0, present=None):
    """Objects of one colour each, seen from four sides in a light that differs."""
    draw = rng(seed)
    colour = torch.rand(count, 1, 4, 1, 1, generator=draw)
    light = 0.8 + 0.2 * torch.rand(count, VIEWS, 1, 1, 1, generator=draw)
    noise = 0.02 * torch.randn(count, VIEWS, *SHAPE, generator=draw)
    x = (255 * (colour * light + noise)).clamp(0, 255).to(torch.uint8)
    modalities = [Modality(f"side{m}", SHAPE) for m in range(VIEWS)]
    seen = {modality.name: x[:, m] for m, modality in enumerate(modalities)}
    return MultimodalDataset(modalities, seen, torch.zeros(count, dtype=torch.int64), present)


def matcher_of(data, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return ViewMatcher(data.modalities[0], points=16, widths=[8, 16], **options)


def sphere(count, views, seed=0):
    points = torch.randn(count, views, 16, generator=rng(seed))
    return torch.nn.functional.normalize(points, dim=-1)


def test_objects_come_with_all_their_views_unless_only_one_is_there():
    present = torch.ones(6, VIEWS, dtype=torch.bool)
    present[2, 1:] = False
    present[4, 2:] = False
    data = objects(6, present=present)
    groups = ViewGroups(data)
    assert len(groups) == 5
    batch = groups.batch(torch.tensor([3, 0]))  # objects 4 and 0
    assert batch["x"].shape == (2, VIEWS, *SHAPE)
    assert batch["x"].dtype == torch.uint8
    for row, item in enumerate((4, 0)):
        for m in range(VIEWS):
            assert batch["x"][row, m].equal(data.observations[f"side{m}"][item])
    assert batch["present"].equal(present[[4, 0]])


def test_the_loss_looks_at_two_views_of_each_object_and_at_no_absent_one():
    data = objects(8)
    matcher = matcher_of(data).eval()
    x = ViewGroups(data).batch(torch.arange(8))["x"].float() / 255
    present = torch.ones(8, VIEWS, dtype=torch.bool)
    present[:, 1] = False
    x[:, 1] = torch.nan
    for generator in (None, *map(rng, range(5))):
        assert matcher.loss(x, present, generator=generator)["loss"].isfinite()
    # It sees absent views where it is not told: the check above can fail.
    assert not matcher.loss(x)["loss"].isfinite()
    x[:, 1] = x[:, 0]
    # Without a generator it is of the first two views, which are one: everything is found.
    assert matcher.loss(x)["accuracy"] == 1
    losses = [matcher.loss(x, generator=rng(seed))["loss"].item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_alike_objects_cost_the_logarithm_of_the_batch():
    x = torch.full((6, VIEWS, *SHAPE), 0.5)
    loss = matcher_of(objects(2)).eval().loss(x, generator=rng())["loss"]
    assert loss.item() == pytest.approx(torch.tensor(6.0).log().item(), abs=1e-4)


def test_points_lie_on_the_sphere_and_leave_the_mode():
    data = objects(5)
    matcher = matcher_of(data)
    points = matcher.embed(data.observations)
    assert points.shape == (5, VIEWS, 16)
    assert torch.allclose(points.norm(dim=-1), torch.ones(5, VIEWS), atol=1e-5)
    assert matcher.training
    floats = {name: x.float() / 255 for name, x in data.observations.items()}
    assert torch.allclose(matcher.embed(floats), points)
    # View by view, in the order of the views.
    turned = dict(reversed(data.observations.items()))
    assert torch.allclose(matcher.embed(turned), points.flip(1))


def test_it_learns_to_find_other_views_of_new_objects_and_none_of_shuffled_ones():
    train, test = objects(400, seed=1), objects(200, seed=2)
    matcher = matcher_of(train)
    options = dict(batch_size=50, learning_rate=4e-3, seed=0, progress=False)
    fit(matcher, ViewGroups(train), steps=80, **options)
    points = matcher.embed(test.observations)
    found = same_object(points, 10, rng())
    assert found.shape == (VIEWS, VIEWS)
    assert found.diagonal().isnan().all()
    assert found.nanmean() > 0.8
    positions = shuffled(torch.zeros(200, dtype=torch.int64), VIEWS, rng())
    apart = points[positions, torch.arange(VIEWS)]
    # Chance is 0.1; over 12 pairs of 200 sets its deviation is below 0.02.
    assert abs(same_object(apart, 10, rng()).nanmean() - 0.1) < 0.06


def test_a_view_finds_its_own_set_and_sets_that_are_all_alike_find_nothing():
    one = sphere(40, 1)
    assert (same_object(one.expand(-1, 3, -1), 20, rng()).nan_to_num(1) == 1).all()
    alike = one[:1].expand(40, 3, -1)
    assert (same_object(alike, 20, rng()).nan_to_num(0) == 0).all()


def test_rows_ask_and_columns_answer():
    points = sphere(30, 3)
    points[:, 1] = points[:, 0]
    points[1:, 1] = points[:1, 0]  # views 1 are all alike
    found = same_object(points, 30, rng())
    # Views 1 can never be told apart; as they all ask for one, at most one finds it.
    assert found[0, 1] == found[2, 1] == 0
    assert 0 < found[1, 0] <= 1 / 30 + 1e-9


def test_refuses_points_of_another_shape():
    for odd in (torch.rand(5, 4), torch.rand(5, 1, 4)):
        with pytest.raises(ValueError, match=r"points: .*, expected \(N, M, P\), M > 1"):
            same_object(odd, 2, rng())
    with pytest.raises(ValueError, match="pool: 6, expected 2 to 5"):
        same_object(torch.rand(5, 2, 4), 6, rng())
