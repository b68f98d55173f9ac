"""Families and splits of the views of meshes: nothing torn apart, and shares kept."""

import numpy as np
import pytest

from data_scripts.shapenet_splits import SHARES, deal_splits, merge_alike


@pytest.mark.parametrize("sizes", [[1] * 200, [20, 20, 15, 5] + [2] * 30 + [1] * 40, [50, 1, 1]])
def test_splits_tear_no_family_and_keep_the_shares(sizes):
    families = [f"f{k}" for k, size in enumerate(sizes) for _ in range(size)]
    categories = [f"c{k % 3}" for k, size in enumerate(sizes) for _ in range(size)]
    splits = deal_splits(families, categories)
    homes = {family: {s for s, f in zip(splits, families) if f == family} for family in families}
    assert all(len(home) == 1 for home in homes.values())
    counts = {split: splits.count(split) for split in SHARES}
    assert all(counts.values())
    if len(sizes) > 3:
        for split, share in SHARES.items():
            assert counts[split] / len(families) == pytest.approx(share, abs=0.05)
            assert {c for s, c in zip(splits, categories) if s == split} == {"c0", "c1", "c2"}
    # Another order gives the same.
    order = np.random.default_rng(0).permutation(len(families))
    again = deal_splits([families[k] for k in order], [categories[k] for k in order])
    assert again == [splits[k] for k in order]


def test_objects_of_one_shape_become_one_family():
    rng = np.random.default_rng(0)
    shapes = (rng.random((3, 2, 20, 20)) < 0.5).astype(np.uint8) * 255
    at = [0, 1, 0, 2, 1, 0]
    families, categories = list("fedcba"), ["x"] * 5 + ["y"]

    def silhouettes(k):
        return shapes[at[k]]

    merged = merge_alike(families, categories, silhouettes, 0.001)
    # Those of one shape and category, under the first of their names.
    assert merged == ["d", "b", "d", "c", "b", "a"]
    assert merge_alike(families, categories, silhouettes, 2.0) == ["b"] * 5 + ["a"]
    # Names hold families together that do not look alike.
    assert merge_alike(["p", "q", "p", "q", "r", "p"], categories, silhouettes, 0.001) == [
        "p", "q", "p", "q", "q", "p",
    ]  # fmt: skip
