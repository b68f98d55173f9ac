"""The data of stage 2: what stage 1 says of every training item.

The mean and the standard deviation of each item's posterior are kept, never the mean alone:
a prior trained on means would learn a distribution with less noise than the decoder was
trained on. Each step draws a fresh z, and for every item a subset of its features. A baseline's
posterior, a mixture, is kept whole in the same way.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shala_lite.distributions import Posterior
from shala_lite.vae import MultimodalVAE


@dataclass(frozen=True)
class LatentDataset:
    """Posteriors and features of N items.

    Args:
        posterior: with mean and std of shape (N, Z).
        features: {name: (N, D)}.
        present: (N, M) bool.
    """

    posterior: Posterior
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
def encode(vae: MultimodalVAE, batches: Iterable[dict]) -> LatentDataset:
    """Run stage 1 once over `batches` of {"x", "present"} and keep what it says.

    The model is set to evaluation mode for the time being.
    """
    training = vae.training
    vae.eval()
    posteriors: list[Any] = []
    masks: list[Tensor] = []
    features: dict[str, list[Tensor]] = {name: [] for name in vae.names}
    for batch in batches:
        h = vae.features(batch["x"], batch["present"])
        posteriors.append(vae.posterior(h, batch["present"]))
        whole = next(iter(h.values())).new_ones(len(posteriors[-1].mean), len(vae.names))
        masks.append(whole.bool() if batch["present"] is None else batch["present"])
        for name, value in h.items():
            features[name].append(value)
    vae.train(training)
    if not posteriors:
        raise ValueError("batches: empty, expected at least one batch")
    return LatentDataset(
        type(posteriors[0]).cat(posteriors),
        {name: torch.cat(values) for name, values in features.items() if values},
        torch.cat(masks),
    )
