r"""What a training step costs as the number of modalities grows.

    cost(M) = c M^k      is a straight line on logarithmic axes, and k is its slope

k = 1 is linear: twice the modalities, twice the cost. A model that decodes every modality from
every expert has k = 2, one that looks at all subsets has no k at all: its slope keeps rising.

Memory is counted, not observed, so that it is the same on every machine: the weights, their
gradients and the two moments that Adam keeps of each, and all that the backward pass has to read.
What lives shorter than that is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite import stages
from shala_lite.datasets import MultimodalDataset
from shala_lite.fusion import FUSIONS
from shala_lite.model import make_vae

COPIES = 4  # of each weight: itself, its gradient, two moments
MIB = 2**20


def step_cost(model: nn.Module, batch: dict[str, Any], *, repeats: int = 3) -> dict[str, float]:
    """Seconds and MiB of one step of AdamW on this batch, and the numbers in the model.

    Args:
        model: has `loss(**batch, generator=)` as `training.fit` reads it; trained in place.
        batch: of a dataset, on the model's device.
        repeats: steps that are timed, after one that is not; the quickest counts.

    Returns:
        `seconds`: of the processor, so that what else runs does not count; on a GPU of the clock.
        `memory_mib`, `parameters`.
    """
    if repeats < 1:
        raise ValueError(f"repeats: {repeats}, expected at least 1")
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    taken, held = [], 0
    for turn in range(repeats + 1):
        began = _clock(device)
        generator = torch.Generator(device).manual_seed(turn)
        if turn:
            loss = model.loss(**batch, generator=generator)["loss"]  # type: ignore[operator]
        else:
            loss, held = _counted(model, batch, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        taken.append(_clock(device) - began)
    size = sum(p.numel() for p in parameters)
    weights = COPIES * sum(p.numel() * p.element_size() for p in parameters)
    return {
        "seconds": min(taken[1:]),
        "memory_mib": (weights + held) / MIB,
        "parameters": float(size),
    }


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return perf_counter()
    return process_time() / torch.get_num_threads()


def _counted(
    model: nn.Module, batch: dict[str, Any], generator: torch.Generator
) -> tuple[Tensor, int]:
    """The loss, and the bytes beside the weights that its backward pass reads."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.loss(**batch, generator=generator)["loss"]  # type: ignore[operator]
    return loss, sum(held.values())


def exponent(counts: Sequence[int], costs: Sequence[float]) -> float:
    """k of the power law that fits best on logarithmic axes, by least squares.

    Args:
        counts: M, at least two different ones.
        costs: what it costs at each, positive.

    Raises:
        ValueError: other lengths, or a number that has no logarithm.
    """
    if len(counts) != len(costs) or len(set(counts)) < 2:
        raise ValueError(f"costs: {len(costs)} for counts {list(counts)}, expected one each, of 2")
    if min(*counts, *costs) <= 0:
        raise ValueError(f"counts, costs: {list(counts)}, {list(costs)}, expected positive numbers")
    x, y = ([math.log(value) for value in values] for values in (counts, costs))
    centre = sum(x) / len(x)
    above = sum((a - centre) * b for a, b in zip(x, y, strict=True))
    return above / sum((a - centre) ** 2 for a in x)


def step_costs(
    data: MultimodalDataset, counts: Sequence[int], most: Mapping[str, int], **sizes: Any
) -> dict[str, dict[int, dict[str, float]]]:
    """{variant: {M: `step_cost`}} of a step on all items of `data`, through M of its modalities.

    Args:
        data: of at least as many modalities as the largest M; those that are read are spread
            evenly over them.
        counts: every M.
        most: {variant: the largest M that it is asked for}; variants are names in
            `model.VARIANTS`.
        sizes: arguments of our models, `latent_dim` among them. A baseline has its own heads, as in
            `stages.baseline`, and no alignment.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for variant, limit in most.items():
        for count in (count for count in counts if count <= limit):
            some = data.only(spread([m.name for m in data.modalities], count))
            own = {}
            if variant not in FUSIONS:
                own = stages.baseline(variant, sizes["latent_dim"], count, alignment=0.0)
            model = make_vae(variant, some.modalities, **(sizes | own)).to(data.device)
            cost = step_cost(model, some.batch(torch.arange(len(some))))
            found.setdefault(variant, {})[count] = cost
    return found


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names, evenly spread from the first one on.

    Raises:
        ValueError: a count that is not between 1 and the number of names.
    """
    if not 1 <= count <= len(names):
        raise ValueError(f"count: {count}, expected 1 to {len(names)}")
    return [names[at * len(names) // count] for at in range(count)]


def growth(costs: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """How the costs {M: `step_cost`} grow: the `exponent` of seconds, memory and parameters.

    And what they are: `seconds@M_views` for every M.
    """
    keys = {"seconds": "seconds", "memory": "memory_mib", "parameters": "parameters"}
    slopes = {
        f"{name}_exponent": exponent(list(costs), [own[key] for own in costs.values()])
        for name, key in keys.items()
    }
    return slopes | {f"seconds@{count}_views": own["seconds"] for count, own in costs.items()}
