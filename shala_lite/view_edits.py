r"""The shape of one object with the look of another, by way of latents.

    latents        z_A + (c_B - c_A) W,   W from the least-squares fit  z = a + c W
    conditioning   z_t = (1 - t) z_A + t e, and back to t = 0 with a view of B as the condition

c is the mean colour of what an object covers, over all its views: it needs no label and no judge.

Source: noise up to a time and back, SDEdit, Meng et al. 2022.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from shala_lite.denoiser import evaluating
from shala_lite.prior import LatentPrior
from shala_lite.view_sets import silhouettes
from shala_lite.visual_hull import overlap


def mean_colours(views: Mapping[str, Tensor]) -> Tensor:
    """Mean colour of covered pixels over all views {name: (N, 4, H, W)}, (N, 3) float64 in [0, 1].

    Of an object that covers nothing it is white.

    Raises:
        ValueError: pictures without alpha, or as `check_views`.
    """
    covered = silhouettes(views).double()
    total = torch.zeros(len(covered), 3, dtype=torch.float64, device=covered.device)
    for m, x in enumerate(views.values()):
        colour = x[:, :3].double() / (1.0 if x.is_floating_point() else 255.0)
        total += (colour * covered[:, m, None]).flatten(2).sum(2)
    pixels = covered.flatten(1).sum(1, keepdim=True)
    return torch.where(pixels > 0, total / pixels.clamp(min=1), 1.0)


def colour_directions(z: Tensor, colours: Tensor) -> Tensor:
    """W (3, Z): how latents (N, Z) move with colours (N, 3), by least squares.

    Raises:
        ValueError: other numbers of both, or fewer than four.
    """
    if len(z) != len(colours) or len(z) < 4:
        raise ValueError(f"z, colours: {len(z)}, {len(colours)}, expected as many, at least 4")
    known = torch.cat([torch.ones(len(z), 1), colours.float().cpu()], 1).double()
    return torch.linalg.lstsq(known, z.double().cpu()).solution[1:].to(z)


@torch.no_grad()
def regenerated(
    prior: LatentPrior,
    z: Tensor,
    t: float,
    given: Mapping[str, Tensor],
    *,
    steps: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Latents (N, Z) with noise up to time t, and back with the features that are given.

    Args:
        prior: of the rectified schedule, whose paths are z_t = (1 - t) z + t e.
        z: in the units of the decoder.
        t: 0 changes nothing, 1 forgets z.
        given: {name: (N, D)}.
        steps: of Euler's method, each of one evaluation.
        generator: of the noise.

    Raises:
        ValueError: t beyond [0, 1], or no step.
    """
    if not 0 <= t <= 1 or steps < 1:
        raise ValueError(f"t, steps: {t}, {steps}, expected 0 to 1, and at least 1")
    noise = torch.randn(z.shape, generator=generator, device=z.device)
    at = (1 - t) * prior.standardised(z) + t * noise
    present = torch.tensor([name in given for name in prior.names], device=z.device)
    with evaluating(prior):
        for s in torch.linspace(t, 0, steps + 1, device=z.device)[:-1]:
            velocity = prior.velocity(at, s.expand(len(z)), dict(given), present.expand(len(z), -1))
            at = at - t / steps * velocity
    return at * prior.latent_std + prior.latent_mean


def edit_scores(
    views: Mapping[str, Tensor], shapes: Tensor, own: Tensor, other: Tensor
) -> dict[str, float]:
    """What was kept of A, and what was taken of B.

    Args:
        views: of N edited objects, {name: (N, 4, H, W)}.
        shapes: silhouettes (N, M, H, W) of every A.
        own, other: mean colours (N, 3) of every A, and of its B.

    Returns:
        `outline_overlap` with A's silhouettes, and `colour_taken`, the share of objects whose mean
        colour is nearer to B's than to A's.
    """
    colours = mean_colours(views)
    nearer = (colours - other.to(colours)).norm(dim=1) < (colours - own.to(colours)).norm(dim=1)
    kept = overlap(silhouettes(views).cpu(), shapes.cpu())
    return {
        "outline_overlap": kept.mean().item(),
        "colour_taken": nearer.double().mean().item(),
    }
