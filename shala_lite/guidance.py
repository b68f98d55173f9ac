r"""What a sample is told, and how loudly.

Sampling may exaggerate what a velocity has over a worse one, by the factor `guidance`:

    v_guided = v_worse + guidance (v(z_t, t, S) - v_worse)

The worse one is either v(z_t, t, nothing), of the same network, which exaggerates the condition
(classifier-free guidance, Ho and Salimans 2022); or that of the guide, a smaller prior that was
trained for fewer steps, which exaggerates what is learned late and serves without a condition too
(autoguidance, Karras et al. 2024). Either way a guided evaluation is two evaluations.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shala_lite.samplers import Velocity

Features = dict[str, Tensor]
Given = Features | None
Conditional = Callable[[Tensor, Tensor, Features, Tensor], Tensor]


def which_given(
    n: int, width: int, given: Features, present: Tensor | None, names: Sequence[str]
) -> Tensor:
    """The features that each item may use, (n, M) bool; unlike in stage 1 they may be none.

    Args:
        n: number of items.
        width: D, the size of a feature.
        given: features {name: (n, D)} of any subset.
        present: (n, M) bool, in the order of `names`; None means all that is given.
        names: all M modalities.

    Raises:
        ValueError: features, or `present`, of another shape, or `present` not of bool.
        KeyError: features of an unknown modality.
    """
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise KeyError(f"given: unknown {unknown}, expected among {list(names)}")
    wrong = {name: tuple(h.shape) for name, h in given.items() if h.shape != (n, width)}
    if wrong:
        raise ValueError(f"given: shapes {wrong}, expected (n, D) = {(n, width)}")
    have = torch.tensor([name in given for name in names]).expand(n, -1)
    if present is None:
        return have
    if present.shape != have.shape:
        raise ValueError(f"present: shape {tuple(present.shape)}, expected {tuple(have.shape)}")
    if present.dtype != torch.bool:
        raise ValueError(f"present: {present.dtype}, expected torch.bool")
    return have.to(present.device) & present


def guided_velocity(
    velocity: Conditional,
    given: Features,
    have: Tensor,
    guidance: float,
    worse: Conditional | None = None,
) -> Velocity:
    """v_guided of the module's docstring, a function of z (n, Z) and t (n,).

    Args:
        velocity: v(z, t, given, have) of the prior.
        given: features {name: (n, D)}.
        have: (n, M) bool, which of them each item may use.
        guidance: 0 is the worse velocity, 1 the prior's own.
        worse: that of the guide; None is the prior's, given nothing.
    """

    def guided(z: Tensor, t: Tensor) -> Tensor:
        if worse is not None:
            better, other = velocity(z, t, given, have), worse(z, t, given, have)
        else:  # both in one call of the network
            twice = {name: torch.cat([h, h]) for name, h in given.items()}
            present = torch.cat([have, torch.zeros_like(have)])
            pair = velocity(torch.cat([z, z]), torch.cat([t, t]), twice, present)
            better, other = pair.chunk(2)
        return other + guidance * (better - other)

    return guided
