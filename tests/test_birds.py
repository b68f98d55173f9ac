"""Birds drawn from attributes: each shows, each in its own place."""

import numpy as np
import pytest
import torch
from torch import nn

from shala_lite.datasets import birds
from shala_lite.datasets.birds import COLOURS, NUISANCES, VALUES

COLOURED = ("crown", "back", "wing", "belly")


def some(count, seed=0):
    """Values of ``count`` birds, and their nuisance."""
    rng = np.random.default_rng(seed)
    return birds.deal(count, rng), rng.random((count, NUISANCES))


def painted(values, nuisance, **changed):
    """Pictures of the same birds with some attributes set to one value, as float64."""
    count = len(nuisance)
    fixed = {k: np.full(count, VALUES[k].index(v)) for k, v in changed.items()}
    return birds.draw(values | fixed, nuisance).astype(float)


def coverage(values, nuisance, name, **changed):
    """The share of each pixel (N, 64, 64) that has the colour of one part."""
    white = painted(values, nuisance, **changed, **{name: "white"})
    black = painted(values, nuisance, **changed, **{name: "black"})
    # Light scales both; its size is seen where the part fills a pixel.
    difference = (white - black).sum(1)
    return difference / difference.max((1, 2), keepdims=True)


def test_every_value_of_an_attribute_is_equally_frequent_and_independent_of_the_others():
    count = 4800
    values, _ = some(count)
    for name, known in VALUES.items():
        assert values[name].dtype == np.int64
        assert np.bincount(values[name]).tolist() == [count // len(known)] * len(known)
    table = np.corrcoef(np.stack(list(values.values())))
    assert abs(table - np.eye(len(VALUES))).max() < 4.5 / np.sqrt(count)


def test_same_arguments_same_bytes():
    values, nuisance = some(12)
    first = birds.draw(values, nuisance)
    assert first.dtype == np.uint8
    assert first.shape == (12, 3, 64, 64)
    assert np.array_equal(first, birds.draw(values, nuisance))
    # A picture depends on its own row alone.
    alone = birds.draw({k: v[5:6] for k, v in values.items()}, nuisance[5:6])
    assert np.array_equal(alone[0], first[5])


def test_parts_share_out_the_bird_and_each_is_large_enough_to_be_seen():
    values, nuisance = some(60)
    shares = np.stack([coverage(values, nuisance, name) for name in COLOURED])
    # At a border two parts may share a pixel; together they are never more than it.
    assert shares.sum(0).max() < 1.05
    filled = (shares > 0.95).sum((2, 3))
    assert filled.min() >= 6


@pytest.mark.parametrize("name", COLOURED)
def test_another_colour_changes_its_own_part_only(name):
    values, nuisance = some(40, seed=1)
    first, second = (painted(values, nuisance, **{name: c}) for c in ("green", "purple"))
    changed = (first != second).any(1)
    assert changed.any((1, 2)).all()
    for other in set(COLOURED) - {name}:
        assert not changed[coverage(values, nuisance, other) > 0.95].any()
    # Within the part the colour is the one asked for, in the light of the picture.
    inside = coverage(values, nuisance, name) > 0.99
    for row in range(len(first)):
        seen = first[row][:, inside[row]].mean(1)
        light = 0.87 + 0.16 * nuisance[row, 2]
        assert abs(seen - np.array(COLOURS["green"]) * light).max() < 4


def test_the_bill_changes_the_picture_only_before_the_face():
    values, nuisance = some(40, seed=2)
    pictures = [painted(values, nuisance, bill=bill) for bill in VALUES["bill"]]
    crown = coverage(values, nuisance, "crown")
    rows, columns = np.indices((64, 64))
    right = values["facing"] == VALUES["facing"].index("right")
    for first, second in ((0, 1), (0, 2), (1, 2)):
        changed = (pictures[first] != pictures[second]).any(1)
        assert changed.sum((1, 2)).min() >= 5
        for row in range(40):
            middle = (crown[row] * columns).sum() / crown[row].sum()
            there = columns[changed[row]] - middle
            assert (there > 0).all() if right[row] else (there < 0).all()
            assert abs(rows[changed[row]] - (crown[row] * rows).sum() / crown[row].sum()).max() < 20


def test_large_birds_are_larger_and_facing_mirrors():
    values, nuisance = some(30, seed=3)

    def area(size):
        return sum(coverage(values, nuisance, name, size=size).sum((1, 2)) for name in COLOURED)

    assert (area("large") / area("small")).min() > 1.5
    # Upright, in the middle, under a clear sky, on even ground.
    nuisance[:, 3:] = 0.5
    nuisance[:, 3] = 0.9
    left, right = (painted(values, nuisance, facing=f, pose="standing") for f in VALUES["facing"])
    odd = abs(left - right[..., ::-1]).max(1) > 64
    assert odd.mean() < 0.02
    assert (abs(left - right).max(1) > 64).mean() > 0.05


def test_only_the_bird_in_flight_has_neither_branch_nor_ground_nor_legs():
    values, nuisance = some(20, seed=4)
    nuisance[:, 3] = 0.9  # no cloud
    shown = {pose: painted(values, nuisance, pose=pose) for pose in VALUES["pose"]}
    corner = {pose: x[:, :, 62, 0] for pose, x in shown.items()}
    sky = shown["flying"][:, :, 62, 63]
    assert np.array_equal(corner["flying"], sky)
    assert (abs(corner["standing"] - sky).max(1) > 10).all()
    assert np.array_equal(corner["perched"], sky)
    edge = shown["perched"][:, :, 40:62, 0].transpose(0, 2, 1)  # the branch leaves at the side
    assert (abs(edge - sky[:, None]).max((1, 2)) > 40).all()


def test_a_small_net_reads_the_attributes_off_new_pictures():
    values, nuisance = some(3000, seed=5)
    x = torch.from_numpy(birds.draw(values, nuisance)).float() / 255
    y = [torch.from_numpy(known) for known in values.values()]
    sizes = [len(known) for known in VALUES.values()]
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for a, b, kernel in ((3, 16, 5), (16, 32, 3), (32, 64, 3)):
            stride = 3 if a == 3 else 2
            layers += [nn.Conv2d(a, b, kernel, stride, kernel // 2), nn.BatchNorm2d(b), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 36, sum(sizes)))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(5):
        for at in torch.randperm(2500, generator=draw).split(64):
            said = net(x[at]).split(sizes, 1)
            loss = sum(nn.functional.cross_entropy(s, known[at]) for s, known in zip(said, y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        said = net(x[2500:]).split(sizes, 1)
    right = {n: (s.argmax(1) == k[2500:]).float().mean() for n, s, k in zip(VALUES, said, y)}
    wanted = {"crown": 0.5, "back": 0.6, "wing": 0.6, "belly": 0.8, "bill": 0.45}
    for name in VALUES:
        assert right[name] > wanted.get(name, 0.9), right


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"crown": np.array([8, 0])}, "values.'crown'.: expected .2,. integers from 0 to 7"),
        ({"bill": np.array([0])}, "values.'bill'."),
        ({"tail": np.array([0, 0])}, "values: expected the names"),
    ],
)
def test_bad_values_are_named(change, complaint):
    values, nuisance = some(2)
    with pytest.raises(ValueError, match=complaint):
        birds.draw(values | change, nuisance)


def test_a_nuisance_of_another_shape_is_named():
    values, nuisance = some(2)
    with pytest.raises(ValueError, match=r"nuisance: expected \(N, 12\), got \(2, 11\)"):
        birds.draw(values, nuisance[:, 1:])
