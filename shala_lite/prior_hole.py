r"""How far the prior p(z) is from the aggregated posterior q(z) = 1/N sum_n q(z | x_n).

The mean divergence that stage 1 pays falls into two parts:

    E_x KL(q(z | x) || p(z)) = I(x; z) + KL(q(z) || p(z))    [nats]

The first is what a latent tells of its item and is no fault of the prior; the second is the hole.
Source: Hoffman and Johnson 2016, "ELBO surgery". Measures that need samples alone are in
`two_sample`.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from shala_lite.distributions import DiagonalGaussian, GaussianMixture, Posterior
from shala_lite.distributions import standard_normal_log_prob as standard_normal

SATURATED = 0.95  # share of log N from which on mutual information is bound by N, not by the model
BLOCK = 4_000_000  # numbers of a matrix held at once


class AggregatedKL(NamedTuple):
    """The mean divergence taken apart, at the largest N, in nats.

    Args:
        mean_kl: the rate, sum of the next two.
        mutual_information: I(x; z), at most `log_n`.
        kl: KL(q(z) || p(z)).
        log_n: logarithm of the number of posteriors in the mixture.
        curve: (N, mutual_information, kl) for each N, rising.
    """

    mean_kl: float
    mutual_information: float
    kl: float
    log_n: float
    curve: tuple[tuple[int, float, float], ...]

    @property
    def saturated(self) -> bool:
        """Whether I is at least 0.95 log N: then the data, not the posterior, bound it."""
        return self.mutual_information >= SATURATED * self.log_n


def _double(posterior: Posterior) -> Posterior:
    return type(posterior)(**{name: value.double() for name, value in vars(posterior).items()})


def log_aggregated(posterior: Posterior, z: Tensor) -> Tensor:
    """log 1/N sum_n q(z | x_n) at each of z (B, Z), shape (B,), in nats, exact, in float64.

    Expands the square, so that a block of rows costs two matrix products.
    """
    if isinstance(posterior, DiagonalGaussian):
        one = torch.ones_like(posterior.mean[:, :1])
        posterior = GaussianMixture(posterior.mean[:, None], posterior.std[:, None], one)
    mean, std, weight = (value.double().flatten(0, 1) for value in vars(posterior).values())
    if z.ndim != 2 or z.shape[1] != mean.shape[1]:
        raise ValueError(f"z has shape {tuple(z.shape)}; expected (B, {mean.shape[1]})")
    precision = std.square().reciprocal()
    linear = (mean * precision).T
    constant = weight.log() + DiagonalGaussian(mean, std).log_prob(torch.zeros_like(mean))
    parts = [
        (constant + part @ linear - 0.5 * part.square() @ precision.T).logsumexp(1)
        for part in z.double().split(max(1, BLOCK // len(mean)))
    ]
    return torch.cat(parts) - math.log(len(posterior.weights))


@torch.no_grad()
def kl_aggregated_prior(
    posterior: Posterior,
    log_prior: Callable[[Tensor], Tensor] = standard_normal,
    *,
    generator: torch.Generator,
    sizes: Sequence[int] | None = None,
) -> AggregatedKL:
    """Rate, mutual information and KL(q(z) || p(z)), in nats, by Monte Carlo over draws of q.

        I = mean log q(z | x) - log q_N(z),    KL = mean log q_N(z) - log p(z)

    where q_N is the exact mixture of N posteriors, and z one draw of each of them. I is at most
    log N: where it knows more, it comes out too low and KL too high by the same amount, and
    `saturated` says that N decides.

    Args:
        posterior: of N items, in the mixture.
        log_prior: log p(z) of draws (n, Z) in float64, shape (n,), in nats; called once, with all.
        generator: of the draws and of the order of the items, on the CPU.
        sizes: N of the curve, each from 2 to that of `posterior`; the first N in one random order.
            None: a quarter, a half and all. The largest gives the numbers.

    Raises:
        ValueError: a size out of range, a density that is not finite or has another shape.
    """
    total = len(posterior.mean)
    sizes = sorted({max(2, total // 4), max(2, total // 2), total} if sizes is None else set(sizes))
    if not sizes or sizes[0] < 2 or sizes[-1] > total:
        raise ValueError(f"sizes: {sizes}, expected numbers from 2 to the {total} posteriors")
    mixture = _double(posterior[torch.randperm(total, generator=generator)])
    z = mixture.sample(generator)
    own, prior = mixture.log_prob(z), log_prior(z)
    if prior.shape != own.shape or not (prior.isfinite() & own.isfinite()).all():
        raise ValueError(
            f"log_prior gave shape {tuple(prior.shape)}, {int(prior.isfinite().sum())} finite, the "
            f"posterior {int(own.isfinite().sum())} finite; expected ({len(z)},), all finite"
        )
    curve = []
    for n in sizes:
        mixed = log_aggregated(mixture[:n], z[:n])
        information, hole = (own[:n] - mixed).mean(), (mixed - prior[:n].double()).mean()
        curve.append((n, information.item(), hole.item()))
    n, known, kl = curve[-1]
    return AggregatedKL(known + kl, known, kl, math.log(n), tuple(curve))
