"""Small modalities, data and models that the tests of the core share."""

import torch
from torch import nn

from shala_lite.datasets import MultimodalDataset
from shala_lite.distributions import DiagonalGaussian
from shala_lite.latents import LatentDataset
from shala_lite.modalities import Modality
from shala_lite.model import make_vae
from shala_lite.prior import LatentPrior

NAMES = ("a", "b", "c")
LATENT, FEATURE = 6, 5


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny_modalities(names=NAMES, shape=(2, 8, 8)):
    return tuple(Modality(name, shape) for name in names)


def tiny_images(n=12, names=NAMES, shape=(2, 8, 8), seed=0):
    """Random pixels in [0, 1], {name: (n, *shape)}."""
    generator = rng(seed)
    return {name: torch.rand(n, *shape, generator=generator) for name in names}


def tiny_dataset(n=48, names=NAMES, shape=(2, 8, 8), seed=0, present=None):
    """Random pixels and labels that cycle through ten classes."""
    generator = rng(seed)
    observations = {
        name: torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8)
        for name in names
    }
    labels = torch.arange(n) % 10
    return MultimodalDataset(tiny_modalities(names, shape), observations, labels, present)


@torch.no_grad()
def stir(module: nn.Module, seed=0, scale=0.3):
    """Move every weight and running statistic off its initial value, so that all of it matters."""
    generator = rng(seed)
    for parameter in module.parameters():
        parameter += scale * torch.randn(parameter.shape, generator=generator)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer += scale * torch.randn(buffer.shape, generator=generator)
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module


def tiny_vae(names=NAMES, shape=(2, 8, 8), seed=0, variant="concat", **options):
    """A stirred stage 1, in evaluation mode; the global random state stays as it was."""
    sizes = dict(latent_dim=LATENT, feature_dim=FEATURE, hidden=7, widths=(3, 4), depth=3)
    if variant == "mmvaeplus":
        sizes["private_dim"] = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = make_vae(variant, tiny_modalities(names, shape), **(sizes | options))
    return stir(vae, seed).eval()


def some_present(n=12, m=3, seed=0, share=0.6):
    """A mask (n, m) in which much is missing and no item has nothing."""
    present = torch.rand(n, m, generator=rng(seed)) < share
    present[~present.any(1), 0] = True
    return present


def tiny_prior(names=NAMES, seed=0, stirred=True, **options):
    """A stage 2 that is stirred, or as it is before training; in evaluation mode."""
    sizes = dict(latent_dim=LATENT, feature_dim=FEATURE, tokens=3, width=8, depth=2, heads=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = LatentPrior(names, **(sizes | options))
    return (stir(prior, seed) if stirred else prior).eval()


def tiny_features(n=12, names=NAMES, seed=0):
    generator = rng(seed)
    return {name: torch.randn(n, FEATURE, generator=generator) for name in names}


def tiny_latents(n=64, names=NAMES, seed=0, present=None):
    """Posteriors and features of n items, nowhere near standard."""
    generator = rng(seed)
    mean = 2 + 3 * torch.randn(n, LATENT, generator=generator)
    std = 0.2 + torch.rand(n, LATENT, generator=generator)
    features = {name: 5 + 2 * h for name, h in tiny_features(n, names, seed + 1).items()}
    if present is None:
        present = torch.ones(n, len(names), dtype=torch.bool)
    return LatentDataset(DiagonalGaussian(mean, std), features, present)
