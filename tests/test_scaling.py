"""What a step costs, and how it grows."""

import pytest
import torch
from torch import nn

from shala_lite import scaling


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


def test_growth_is_told_by_exponents_and_both_ends():
    costs = {m: {"seconds": 0.1 * m, "memory_mib": m**2, "parameters": 1e6 * m} for m in (8, 2, 4)}
    found = scaling.growth(costs)
    assert found["exponent of seconds"] == pytest.approx(1)
    assert found["exponent of memory"] == pytest.approx(2)
    assert (found["parameters, fewest"], found["parameters, most"]) == (2, 8)
