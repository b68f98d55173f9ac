r"""Distributions of stage 1: Gaussians over the latent, a Laplace over pixels, words by chance.

    q(z | x) = N(z; mean, diag(std^2)),  or a mixture  sum_k w_k N(z; mean_k, diag(std_k^2))
    KL(q || N(0, I)) = 1/2 sum_i (mean_i^2 + std_i^2 - 1 - 2 log std_i)          [nats]
    prod_m N(mean_m, std_m^2) ~ N(mean, std^2),  std^-2 = sum_m std_m^-2,
                                                 mean = std^2 sum_m mean_m / std_m^2
    log p(x | mu) = -sum_j (|x_j - mu_j| / b + log 2b)                           [nats]
    log p(x | l) = sum_j (l_j[x_j] - log sum_v exp l_j[v])                       [nats]

Source: Kingma and Welling 2014, appendix B, for the divergence; Hinton 2002 for the product.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MIN_STD, MAX_STD = 1e-3, 10.0


def mean_and_std(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Split what a net says, (..., 2Z), into mean and standard deviation, each (..., Z)."""
    mean, raw = outputs.float().chunk(2, dim=-1)
    # softplus keeps the gradient alive on both sides; the bounds keep log_prob finite
    return mean, nn.functional.softplus(raw).clamp(MIN_STD, MAX_STD)


def standard_normal_like(
    shape: torch.Size, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Standard normal numbers of `shape`, drawn where `generator` is, moved to where `like` is."""
    device = like.device if generator is None else generator.device
    noise = torch.randn(shape, generator=generator, device=device, dtype=like.dtype)
    return noise.to(like.device)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I), summed over the last dimension, in nats."""
    return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(-1)


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(std^2)), one per item.

    Args:
        mean: shape (B, Z).
        std: standard deviation, positive, shape (B, Z).
    """

    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean and std: shapes {tuple(self.mean.shape)} and {tuple(self.std.shape)}, "
                "expected the same"
            )

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one z for each item by reparametrisation, shape (B, Z)."""
        return self.mean + self.std * standard_normal_like(self.mean.shape, self.mean, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z), summed over dimensions, shape (B,), in nats."""
        residual = (z - self.mean) / self.std
        terms = -0.5 * residual.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return terms.sum(-1)

    def kl(self) -> Tensor:
        """KL(q || N(0, I)), shape (B,), in nats."""
        variance = self.std.square()
        return 0.5 * (self.mean.square() + variance - 1 - variance.log()).sum(-1)

    def rate(self, z: Tensor) -> Tensor:
        """KL(q || N(0, I)), shape (B,), in nats: in closed form, whatever the draw z."""
        return self.kl()

    def __getitem__(self, index) -> "DiagonalGaussian":
        return DiagonalGaussian(self.mean[index], self.std[index])

    @classmethod
    def cat(cls, parts: Sequence["DiagonalGaussian"]) -> "DiagonalGaussian":
        """The items of several, one after the other."""
        return cls(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts]))


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k w_k N(mean_k, diag(std_k^2)), one per item.

    Args:
        means, stds: of the K components, shape (B, K, Z), stds positive.
        weights: shape (B, K), non-negative with sum 1; a component of weight 0 is not there.
    """

    means: Tensor
    stds: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        if self.means.shape != self.stds.shape or self.means.shape[:-1] != self.weights.shape:
            raise ValueError(
                f"means, stds and weights: shapes {tuple(self.means.shape)}, "
                f"{tuple(self.stds.shape)} and {tuple(self.weights.shape)}, "
                "expected (B, K, Z) twice and (B, K)"
            )

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, shape (B, Z)."""
        return (self.weights[..., None] * self.means).sum(-2)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the mixture per dimension, shape (B, Z)."""
        spread = self.stds.square() + (self.means - self.mean[..., None, :]).square()
        return (self.weights[..., None] * spread).sum(-2).sqrt()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one z for each item, shape (B, Z): a component, then its Gaussian."""
        device = self.means.device if generator is None else generator.device
        # of K alarms with rates w_k the first to ring is k with probability w_k
        alarms = torch.empty(self.weights.shape, device=device).exponential_(generator=generator)
        chosen = (self.weights / alarms.to(self.means.device)).argmax(-1)
        at = chosen[..., None, None].expand(*chosen.shape, 1, self.means.shape[-1])
        mean, std = self.means.gather(-2, at).squeeze(-2), self.stds.gather(-2, at).squeeze(-2)
        return mean + std * standard_normal_like(mean.shape, mean, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z), shape (B,), in nats."""
        each = DiagonalGaussian(self.means, self.stds).log_prob(z[..., None, :])
        return (each + self.weights.log()).logsumexp(-1)

    def rate(self, z: Tensor) -> Tensor:
        """log q(z) - log N(z; 0, I), shape (B,), in nats: over draws z of q, KL(q || N(0, I))."""
        return self.log_prob(z) - standard_normal_log_prob(z)

    def __getitem__(self, index) -> "GaussianMixture":
        return GaussianMixture(self.means[index], self.stds[index], self.weights[index])

    @classmethod
    def cat(cls, parts: Sequence["GaussianMixture"]) -> "GaussianMixture":
        """The items of several, one after the other."""
        columns = zip(*[(p.means, p.stds, p.weights) for p in parts], strict=True)
        return cls(*map(torch.cat, columns))


Posterior = DiagonalGaussian | GaussianMixture


def product_of_gaussians(
    experts: DiagonalGaussian, present: Tensor, prior: bool = False
) -> DiagonalGaussian:
    """The normalised product of the Gaussians of those experts that are present.

    Args:
        experts: mean and std of shape (..., M, Z).
        present: shape (..., M) bool, at least one true unless `prior`.
        prior: whether N(0, I) is one more expert.

    Returns:
        Mean and std of shape (..., Z).
    """
    precision = experts.std.square().reciprocal() * present[..., None]
    total = precision.sum(-2) + (1.0 if prior else 0.0)
    mean = (precision * experts.mean).sum(-2) / total
    return DiagonalGaussian(mean, total.rsqrt())


def laplace_log_likelihood(x: Tensor, mean: Tensor, scale: float) -> Tensor:
    """log p(x) under independent Laplace distributions, shape (B,), in nats.

    Args:
        x: observation, shape (B, ...).
        mean: location, same shape.
        scale: Laplace scale b, in pixel units, positive.
    """
    distance = (x - mean).abs().flatten(1)
    return -(distance.sum(1) / scale + distance.shape[1] * math.log(2 * scale))


def categorical_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) under independent categorical distributions, shape (B,), in nats.

    Args:
        x: token ids, shape (B, L), int64.
        logits: shape (B, L, V).
    """
    return logits.float().log_softmax(-1).gather(-1, x[..., None]).flatten(1).sum(1)
