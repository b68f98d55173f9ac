r"""Simple priors between N(0, I) and diffusion: what is gained before a network learns to denoise.

    Gaussian mixture        p(z) = sum_k w_k N(z; m_k, S_k), fitted by expectation maximisation
    density ratio           p(z) ~ N(z; 0, I) r(z),  r(z) ~ q(z) / N(z; 0, I)

The ratio is the exponential of the logit of a classifier that tells draws of q(z) from N(0, I), and
is sampled by resampling: of K proposals of N(0, I), one is kept with probability in proportion to
r. The idea is that of Bauer and Mnih 2019 (arXiv 1810.11428, resampled priors) and of Aneja et al.
2021 (arXiv 2010.02917, a contrastive prior). What comes out is within log K nats of N(0, I), so a
deeper hole is only partly closed.

Both learn latents (N, Z) in the units of the decoder, draws of q(z | x), not means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from sklearn import mixture
from torch import Tensor

from shala_lite.two_sample import check_latents, fit_classifier

CHUNK = 1000  # samples whose proposals are held at once


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=generator))


@dataclass(frozen=True)
class GaussianMixturePrior:
    """K Gaussians with full covariances, those of sklearn's `GaussianMixture`."""

    model: mixture.GaussianMixture

    @classmethod
    def fit(cls, z: Tensor, components: int, generator: torch.Generator) -> "GaussianMixturePrior":
        """Fit to latents (N, Z) by expectation maximisation, started by k-means.

        Raises:
            ValueError: components less than 1 or more than N, or see `two_sample.check_latents`.
        """
        (z,) = check_latents(2, z=z)
        if not 1 <= components <= len(z):
            raise ValueError(f"components: {components}, expected 1 to the {len(z)} rows of z")
        model = mixture.GaussianMixture(components, reg_covar=1e-4, random_state=_seed(generator))
        return cls(model.set_params(max_iter=200).fit(z.numpy()))

    @classmethod
    def best(
        cls, z: Tensor, val: Tensor, choices: Sequence[int], generator: torch.Generator
    ) -> "GaussianMixturePrior":
        """Fit each number of components and keep what gives latents of `val` the most nats."""
        fitted = [cls.fit(z, components, generator) for components in choices]
        return max(fitted, key=lambda prior: prior.log_prob(val).mean().item())

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of latents (n, Z), shape (n,), in nats, float64, on the CPU."""
        (z,) = check_latents(1, z=z)
        return torch.from_numpy(self.model.score_samples(z.numpy()))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n latents, shape (n, Z), on the CPU."""
        z, _ = self.model.set_params(random_state=_seed(generator)).sample(n)
        # sklearn gives one component after the other
        return torch.from_numpy(z).float()[torch.randperm(n, generator=generator)]


@dataclass(frozen=True)
class DensityRatioPrior:
    """N(0, I) resampled by an estimated density ratio.

    Args:
        logit: log r(z) plus any constant, (n, Z) to (n,).
        width: Z.
        proposals: K, draws of N(0, I) that compete for one sample.
    """

    logit: Callable[[Tensor], Tensor]
    width: int
    proposals: int = 64

    @classmethod
    def fit(cls, z: Tensor, generator: torch.Generator, proposals: int = 64) -> "DensityRatioPrior":
        """Learn the ratio from latents (N, Z) and as many of N(0, I).

        The classifier is that of the two-sample test, trained anew. Give it a split of its own: a
        test on latents that it has seen would flatter it.

        Raises:
            ValueError: proposals less than 1, or see `two_sample.check_latents`.
        """
        if proposals < 1:
            raise ValueError(f"proposals: {proposals}, expected at least 1")
        (z,) = check_latents(2, z=z)
        normal = torch.randn(z.shape, generator=generator)
        return cls(fit_classifier(z, normal, generator), z.shape[1], proposals)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n latents, shape (n, Z), on the CPU."""
        kept = []
        for start in range(0, n, CHUNK):
            rows = min(CHUNK, n - start)
            z = torch.randn(rows, self.proposals, self.width, generator=generator)
            weights = self.logit(z.flatten(0, 1)).view(rows, -1).softmax(1)
            chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
            kept.append(z[torch.arange(rows), chosen])
        return torch.cat(kept)
