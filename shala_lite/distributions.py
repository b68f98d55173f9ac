r"""Distributions of stage 1: a diagonal Gaussian over the latent, a Laplace over pixels.

    q(z | x) = N(z; mean, diag(std^2))
    KL(q || N(0, I)) = 1/2 sum_i (mean_i^2 + std_i^2 - 1 - 2 log std_i)          [nats]
    log p(x | mu) = -sum_j (|x_j - mu_j| / b + log 2b)                           [nats]

Source: Kingma and Welling 2014, appendix B, for the divergence.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


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
        noise = torch.randn(
            self.mean.shape,
            generator=generator,
            device=self.mean.device if generator is None else generator.device,
            dtype=self.mean.dtype,
        )
        return self.mean + self.std * noise.to(self.mean.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z), summed over dimensions, shape (B,), in nats."""
        residual = (z - self.mean) / self.std
        terms = -0.5 * residual.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return terms.sum(-1)

    def kl(self) -> Tensor:
        """KL(q || N(0, I)), shape (B,), in nats."""
        variance = self.std.square()
        return 0.5 * (self.mean.square() + variance - 1 - variance.log()).sum(-1)

    def __getitem__(self, index) -> "DiagonalGaussian":
        return DiagonalGaussian(self.mean[index], self.std[index])


def laplace_log_likelihood(x: Tensor, mean: Tensor, scale: float) -> Tensor:
    """log p(x) under independent Laplace distributions, shape (B,), in nats.

    Args:
        x: observation, shape (B, ...).
        mean: location, same shape.
        scale: Laplace scale b, in pixel units, positive.
    """
    distance = (x - mean).abs().flatten(1)
    return -(distance.sum(1) / scale + distance.shape[1] * math.log(2 * scale))
