"""Objects built from attributes: even, in the unit sphere, lopsided, and telling."""

from collections import Counter

import numpy as np
import pytest

from shala_lite.datasets import objects
from shala_lite.datasets.cameras import Rig
from shala_lite.datasets.objects import COLOURS, NUISANCES, VALUES
from shala_lite.datasets.views import render

RIG = Rig(8, 20.0, 32)


def some(count, seed=0):
    """Values of ``count`` objects, a dictionary each, and their nuisances."""
    rng = np.random.default_rng(seed)
    values = objects.deal(count, rng)
    rows = [{name: int(known[row]) for name, known in values.items()} for row in range(count)]
    return rows, rng.random((count, NUISANCES))


def shown(values, nuisance, rig=RIG, **changed):
    """Views (M, 4, side, side) as integers, with some attributes set to other values."""
    fixed = {name: VALUES[name].index(value) for name, value in changed.items()}
    return render(objects.build(values | fixed, nuisance), rig).astype(int)


@pytest.mark.parametrize("count", [1, 7, 240, 1201])
def test_values_are_dealt_evenly(count):
    values = objects.deal(count, np.random.default_rng(3))
    assert list(values) == list(VALUES)
    for name, known in VALUES.items():
        assert values[name].dtype == np.int64
        seen = np.bincount(values[name], minlength=len(known))
        assert len(seen) == len(known)
        assert seen.max() - seen.min() <= 1
    assert (values["main"] != values["accent"]).all()
    pairs = Counter(zip(values["main"].tolist(), values["accent"].tolist()))
    kinds = len(COLOURS) * (len(COLOURS) - 1)
    assert max(pairs.values()) - (min(pairs.values()) if len(pairs) == kinds else 0) <= 1


def test_attributes_are_independent_but_for_the_two_colours():
    count = 4800
    values = objects.deal(count, np.random.default_rng(0))
    table = np.corrcoef(np.stack([values[name] for name in VALUES if name != "accent"]))
    assert abs(table - np.eye(len(table))).max() < 4.5 / np.sqrt(count)


def test_every_object_fits_the_unit_sphere_and_the_same_one_is_built_again():
    rows, nuisances = some(48)
    for values, nuisance in zip(rows, nuisances):
        mesh = objects.build(values, nuisance)
        assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1, abs=1e-6)
        assert len(mesh.faces) < 500
        again = objects.build(values, nuisance)
        assert all(np.array_equal(a, b) for a, b in zip(mesh, again))


@pytest.mark.parametrize("name", VALUES)
def test_each_attribute_shows(name):
    rows, nuisances = some(24, seed=1)
    for values, nuisance in zip(rows, nuisances):
        pair = [v for v in VALUES[name] if VALUES[name].index(v) != values[name]]
        other = {"main": "accent", "accent": "main"}.get(name)
        pair = [v for v in pair if other is None or VALUES[name].index(v) != values[other]]
        changed = abs(shown(values, nuisance) - shown(values, nuisance, **{name: pair[0]}))
        pixels = (changed.max(1) > 60).sum((1, 2))  # in each view
        # In half of the views at least eight pixels tell.
        assert np.sort(pixels)[RIG.views // 2] >= 8, (values, pixels)


@pytest.mark.parametrize("name", ["main", "accent"])
def test_a_colour_changes_no_silhouette(name):
    (values, *_), nuisances = some(1, seed=2)
    first, second = (shown(values, nuisances[0], **{name: c}) for c in ("red", "blue"))
    assert np.array_equal(first[:, 3], second[:, 3])


def test_no_two_views_of_an_object_are_alike():
    rows, nuisances = some(32, seed=3)
    for values, nuisance in zip(rows, nuisances):
        views = shown(values, nuisance)
        for k in range(RIG.views):
            for other in range(k):
                pixels = (abs(views[k] - views[other]).max(0) > 60).sum()
                assert pixels >= 12, (values, k, other)


def test_the_other_side_is_the_mirror_image():
    rows, nuisances = some(8, seed=4)
    for values, nuisance in zip(rows, nuisances):
        left, right = (shown(values, nuisance, side=side) for side in VALUES["side"])
        mirrored = right[(-np.arange(RIG.views)) % RIG.views, 3, :, ::-1]
        # Rays that graze an edge may fall to either side of it.
        assert (abs(left[:, 3] - mirrored) > 64).mean() < 0.002
        assert (abs(left[:, 3] - right[:, 3]) > 64).mean() > 0.002


@pytest.mark.parametrize("category", VALUES["category"])
def test_wide_ones_are_wider_and_high_ones_higher(category):
    _, nuisances = some(40, seed=5)
    values = dict.fromkeys(VALUES, 0) | {"accent": 1}
    values["category"] = VALUES["category"].index(category)

    def sizes(name, value):
        """Median sizes x and y of what has the main colour in the upper half, and the height."""
        found = []
        for nuisance in nuisances:
            mesh = objects.build(values | {name: VALUES[name].index(value)}, nuisance)
            main = (mesh.colours == COLOURS["red"]).all(1)
            part = mesh.vertices[mesh.faces[main]].reshape(-1, 3)
            part = part[part[:, 2] > 0]  # of a lamp the shade alone
            found.append((*np.ptp(part, axis=0)[:2], np.ptp(mesh.vertices[:, 2])))
        return np.median(found, axis=0)

    wide, narrow = sizes("width", "wide"), sizes("width", "narrow")
    assert wide[1] / wide[2] > 1.3 * narrow[1] / narrow[2]
    high, low = sizes("height", "high"), sizes("height", "low")
    assert high[2] / high[0] > 1.3 * low[2] / low[0]


def test_wrong_arguments_are_named():
    (values,), nuisances = some(1)
    with pytest.raises(ValueError, match=r"values: expected the names .*got \['side'\]"):
        objects.build({"side": 0}, nuisances[0])
    with pytest.raises(ValueError, match=r"values\['legs'\]: 2, expected 0 to 1"):
        objects.build(values | {"legs": 2}, nuisances[0])
    with pytest.raises(ValueError, match=rf"nuisance: expected \({NUISANCES},\), got \(3,\)"):
        objects.build(values, nuisances[0, :3])
