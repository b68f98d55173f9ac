r"""The likelihood of what a model has seen, in nats, closer than the ELBO says.

    log p(x) >= E log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x),     z_1, ..., z_K ~ q(z | x)

K = 1 is the ELBO. The right-hand side grows with K, and reaches log p(x) in the limit. It takes any
posterior with a density, a mixture too, so models that train on different bounds meet here.

Source: Burda et al. 2016, arXiv 1509.00519.
"""

import math

import torch
from torch import Tensor

from shala_lite.distributions import standard_normal_log_prob
from shala_lite.vae import MultimodalVAE


@torch.no_grad()
def log_likelihood(
    vae: MultimodalVAE,
    x: dict[str, Tensor],
    present: Tensor | None = None,
    *,
    samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Importance-weighted bound on log p(x) of every item, in nats, shape (B,).

    Args:
        vae: used as it is: call it in evaluation mode.
        x: {name: (B, *shape)}, pixels in [0, 1].
        present: (B, M) bool; the likelihood is that of what is present. None means all.
        samples: K, at least 1.
        generator: source of the draws.

    Raises:
        ValueError: fewer samples than 1, or see `observed.check_observations`.
    """
    if samples < 1:
        raise ValueError(f"samples: {samples}, expected at least 1")
    features = vae.features(x, present)
    posterior = vae.posterior(features, present)
    ratios = []
    for _ in range(samples):
        z = posterior.sample(generator)
        nats = torch.stack(list(vae.log_likelihoods(x, z, present).values())).sum(0)
        ratios.append(nats + standard_normal_log_prob(z) - posterior.log_prob(z))
    return torch.stack(ratios).logsumexp(0) - math.log(samples)
