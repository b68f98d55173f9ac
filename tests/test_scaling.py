"""What a step costs, and how it grows."""

import pytest
import torch
from tiny_models import tiny_dataset
from torch import nn

from shala_lite import scaling, stages
from shala_lite.experts import EXPERTS
from shala_lite.model import make_vae


class Twice(nn.Module):
    """Two linear layers, and a loss as models have one."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def loss(self, x, generator):
        return {"loss": self.second(self.first(x).tanh()).square().sum()}


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power):
    counts = [2, 4, 8, 32]
    costs = [3.0 * count**power for count in counts]
    assert scaling.exponent(counts, costs) == pytest.approx(power)


def test_an_exponential_has_no_exponent_it_rises_with_the_range():
    costs = [2.0**count for count in range(1, 11)]
    early, late = (scaling.exponent(range(a, a + 4), costs[a - 1 : a + 3]) for a in (2, 7))
    assert late > early + 2


@pytest.mark.parametrize(
    ("counts", "costs"), [([2, 4], [1.0]), ([2, 2], [1.0, 1.0]), ([2, 4], [1.0, 0.0])]
)
def test_what_has_no_slope_is_refused(counts, costs):
    with pytest.raises(ValueError, match="counts"):
        scaling.exponent(counts, costs)


def test_memory_is_the_weights_four_times_and_what_the_backward_pass_reads():
    width, items = 64, 10
    cost = scaling.step_cost(Twice(width), {"x": torch.ones(items, width)}, repeats=1)
    size = 2 * (width * width + width)
    assert cost["parameters"] == size
    # the input, the output of tanh, and the output of the second layer: each (items, width)
    assert cost["memory_mib"] * 2**20 == 4 * (4 * size + 3 * items * width)


def test_memory_grows_with_the_batch_by_what_an_item_holds():
    few, more = (
        scaling.step_cost(Twice(8), {"x": torch.ones(n, 8)}, repeats=1)["memory_mib"]
        for n in (10, 30)
    )
    assert (more - few) * 2**20 == pytest.approx(4 * 20 * 3 * 8)


def test_a_step_takes_time_and_trains():
    model = Twice(8)
    before = model.first.weight.detach().clone()
    assert scaling.step_cost(model, {"x": torch.ones(4, 8)})["seconds"] > 0
    assert not torch.equal(before, model.first.weight)
    with pytest.raises(ValueError, match="repeats: 0"):
        scaling.step_cost(model, {"x": torch.ones(4, 8)}, repeats=0)


def test_growth_is_told_by_exponents():
    costs = {m: {"seconds": 0.1 * m, "memory_mib": m**2, "parameters": 1e6 * m} for m in (8, 2, 4)}
    found = scaling.growth(costs)
    assert found == {
        "seconds_exponent": pytest.approx(1),
        "memory_exponent": pytest.approx(2),
        "parameters_exponent": pytest.approx(1),
        "seconds@8_views": 0.8,
        "seconds@2_views": 0.2,
        "seconds@4_views": 0.4,
    }


def test_a_few_names_are_evenly_spread_from_the_first_one_on():
    names = [f"{at}" for at in range(16)]
    assert scaling.spread(names, 4) == ["0", "4", "8", "12"]
    assert scaling.spread(names, 16) == names
    assert scaling.spread(names, 3) == ["0", "5", "10"]
    for count in (0, 17):
        with pytest.raises(ValueError, match=f"count: {count}, expected 1 to 16"):
            scaling.spread(names, count)


def test_costs_are_asked_for_as_far_as_each_variant_goes():
    data = tiny_dataset(4, names="abcdefgh", shape=(1, 8, 8))
    sizes = dict(latent_dim=4, feature_dim=5, hidden=6, widths=(3, 4), depth=2)
    costs = scaling.step_costs(data, [2, 4, 8], {"concat": 8, "mopoe": 4}, **sizes)
    assert {name: list(own) for name, own in costs.items()} == {
        "concat": [2, 4, 8],
        "mopoe": [2, 4],
    }
    numbers = [own["parameters"] for own in costs["concat"].values()]
    # encoders and decoders, and the first layer of the fusion: linear in M
    assert numbers[2] - numbers[1] == 2 * (numbers[1] - numbers[0])


def test_a_baseline_costs_what_it_is_trained_with():
    data = tiny_dataset(4, names="ab", shape=(1, 8, 8))
    sizes = dict(latent_dim=4, feature_dim=5, hidden=6, widths=(3, 4), depth=4, alignment=1.0)
    for name in EXPERTS:
        found = scaling.step_costs(data, [2], {name: 2}, **sizes)[name][2]
        own = stages.baseline(name, 4, 2, alignment=0.0)
        model = make_vae(name, data.modalities, **(sizes | own))
        assert found["parameters"] == sum(p.numel() for p in model.parameters())
