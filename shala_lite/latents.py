"""The data of stage 2: what stage 1 says of every training item.

The mean and the standard deviation of each item's posterior are kept, never the mean alone:
a prior trained on means would learn a distribution with less noise than the decoder was
trained on. Each step draws a fresh z, and for every item a subset of its features.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from shala_lite.distributions import DiagonalGaussian
from shala_lite.vae import FusedVAE


@dataclass(frozen=True)
class LatentDataset:
    """Posteriors and features of N items.

    Args:
        posterior: diagonal Gaussian with mean and std of shape (N, Z).
        features: {name: (N, D)}.
        present: (N, M) bool.
    """

    posterior: DiagonalGaussian
    features: dict[str, Tensor]
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)

    def batch(self, indices: Tensor) -> dict:
        """The arguments of `LatentPrior.loss` for the items at `indices`."""
        indices = indices.to(self.present.device)
        return {
            "latents": self.posterior[indices],
            "features": {name: h[indices] for name, h in self.features.items()},
            "present": self.present[indices],
        }

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the aggregated posterior, per dimension, each (Z,)."""
        mean, std = self.posterior.mean, self.posterior.std
        variance = mean.var(0, unbiased=False) + std.square().mean(0)
        return mean.mean(0), variance.sqrt()


@torch.no_grad()
def encode(vae: FusedVAE, batches: Iterable[dict]) -> LatentDataset:
    """Run stage 1 once over `batches` of {"x", "present"} and keep what it says.

    The model is set to evaluation mode for the time being.
    """
    training = vae.training
    vae.eval()
    means, stds, masks = [], [], []
    features: dict[str, list[Tensor]] = {name: [] for name in vae.names}
    for batch in batches:
        h = vae.features(batch["x"])
        posterior = vae.posterior(h, batch["present"])
        means.append(posterior.mean)
        stds.append(posterior.std)
        masks.append(batch["present"])
        for name, value in h.items():
            features[name].append(value)
    vae.train(training)
    if not means:
        raise ValueError("batches: empty, expected at least one batch")
    return LatentDataset(
        DiagonalGaussian(torch.cat(means), torch.cat(stds)),
        {name: torch.cat(values) for name, values in features.items() if values},
        torch.cat(masks),
    )


def draw_subsets(
    present: Tensor, none: float, one: float, generator: torch.Generator | None = None
) -> Tensor:
    """For every item a random subset of what is present, (B, M) bool.

    With probability `none` nothing, with probability `one` a single modality, else a subset whose
    size is uniform from 1 to the number present.
    """
    device = generator.device if generator is not None else present.device
    batch, count = present.shape
    order = torch.rand(batch, count, generator=generator, device=device).to(present.device)
    kind, size = torch.rand(2, batch, generator=generator, device=device).to(present.device)
    available = present.sum(1)
    # rank of each modality in a random order in which the absent come last
    rank = torch.where(present, order, order + 1).argsort(1).argsort(1)
    wanted = (size * available).long() + 1
    wanted = torch.where(kind < none + one, torch.ones_like(wanted), wanted)
    wanted = torch.where(kind < none, torch.zeros_like(wanted), wanted)
    return (rank < wanted[:, None]) & present
