"""Sets of views: silhouettes, and sets that do not belong together."""

import pytest
import torch

from shala_lite.datasets import MultimodalDataset, load_dataset
from shala_lite.modalities import Modality
from shala_lite.view_sets import check_views, shuffled, silhouettes, views_of


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(alpha):
    """Pictures (B, 4, H, W) of one colour with that alpha (B, H, W)."""
    return torch.stack([torch.full_like(alpha, 7), torch.full_like(alpha, 9), alpha, alpha], 1)


def test_the_silhouette_is_where_more_than_half_of_a_pixel_is_covered():
    alpha = torch.tensor([[[0, 127], [128, 255]]], dtype=torch.uint8)
    views = {"front": pictures(alpha), "back": pictures(255 - alpha)}
    found = silhouettes(views)
    assert found.shape == (1, 2, 2, 2)
    assert found.dtype == torch.bool
    assert found[0].tolist() == [[[False, False], [True, True]], [[True, True], [False, False]]]
    assert silhouettes({name: x.float() / 255 for name, x in views.items()}).equal(found)


def test_refuses_views_that_are_no_set_or_have_no_alpha():
    x = torch.rand(3, 4, 8, 8)
    with pytest.raises(ValueError, match=r"views: 3 channels, expected 4"):
        silhouettes({"a": x[:, :3], "b": x[:, :3]})
    for views in ({"a": x}, {"a": x, "b": x[:2]}, {"a": x[0], "b": x[0]}):
        with pytest.raises(ValueError, match="expected at least two of one shape"):
            check_views(views)
    bad = x.clone()
    bad[1, 3, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"views\['b'\]: not finite"):
        silhouettes({"a": x, "b": bad})


def test_the_views_of_a_data_set_are_its_images():
    x = torch.randint(0, 256, (5, 4, 8, 8), dtype=torch.uint8, generator=rng())
    words = load_dataset("cub", "test", size=5)
    text = words.modalities[1]
    data = MultimodalDataset(
        [Modality("a", (4, 8, 8)), text, Modality("b", (4, 8, 8))],
        {"a": x, "b": x.flip(0), text.name: words.observations[text.name]},
        torch.zeros(5, dtype=torch.int64),
        present=torch.tensor([[True, False, False]]).repeat(5, 1),
    )
    views, present = views_of(data)
    assert list(views) == ["a", "b"]
    assert views["b"].equal(x.flip(0))
    assert present.tolist() == [[True, False]] * 5
    with pytest.raises(ValueError, match="expected at least two"):
        views_of(words)


def test_shuffled_sets_use_every_view_once_and_stay_within_their_group():
    groups = torch.tensor([3, 1] * 6 + [1, 1])
    positions = shuffled(groups, 5, rng())
    assert positions.shape == (14, 5)
    for view in positions.T:
        assert view.sort().values.tolist() == list(range(14))
    assert (groups[positions] == groups[:, None]).all()
    # Both groups have at least as many objects as there are views.
    assert all(len(set(row)) == 5 for row in positions.tolist())
    assert shuffled(groups, 5, rng()).equal(positions)
    assert not shuffled(groups, 5, rng(1)).equal(positions)


def test_a_group_of_few_objects_repeats_them_as_little_as_it_can():
    positions = shuffled(torch.zeros(3, dtype=torch.int64), 6, rng())
    assert all(sorted(row) == [0, 0, 1, 1, 2, 2] for row in positions.tolist())


def test_an_object_alone_cannot_be_shuffled():
    with pytest.raises(ValueError, match="one object in group 8, expected at least two"):
        shuffled(torch.tensor([2, 8, 2]), 4, rng())
