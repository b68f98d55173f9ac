"""Our stage 1 as the benchmark sees it: built, trained, and sampled as its paper samples it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.settings import LARGEST_BATCH, Settings
from shala_lite import evaluation, experts
from shala_lite.datasets import MultimodalDataset
from shala_lite.experiments import ENCODE_BATCH, seeded
from shala_lite.fused import FusedVAE
from shala_lite.judges import Judges
from shala_lite.latents import encode
from shala_lite.modalities import Modality
from shala_lite.prior import LatentPrior
from shala_lite.training import fit

# Stage 2 of the book's quick profile.
PRIOR = dict(denoiser="mlp", width=128, depth=4)
PRIOR_FIT = dict(batch_size=LARGEST_BATCH, learning_rate=4e-3, ema=0.998)
GUIDANCES = (1.0, 2.0, 3.0, 4.0)


def build(name: str, modalities: Sequence[Modality], settings: Settings) -> nn.Module:
    """An untrained model of ours by its name in `settings.OURS`."""
    sizes: dict[str, Any] = dict(
        latent_dim=settings.latent_dim,
        feature_dim=settings.feature_dim,
        widths=settings.widths,
        decoder=settings.decoder,
        decoder_hidden=settings.decoder_hidden,
        depth=settings.depth,
        hidden=settings.hidden,
        likelihood_scale=settings.likelihood_scale,
        beta=settings.beta,
    )
    with seeded(settings.seed):
        if name == "mopoe":
            return experts.MoPoE(modalities, **sizes)
        if name == "mmvaeplus":
            private = settings.private_dim
            sizes["latent_dim"] += private * len(modalities)
            return experts.MMVAEPlus(modalities, private_dim=private, **sizes)
        return FusedVAE(modalities, alignment=settings.alignment, **sizes)


class Ours:
    """One of our models.

    Args:
        name: in `settings.OURS`.
        modalities: what is observed.
        settings: sizes and seed.
    """

    def __init__(self, name: str, modalities: Sequence[Modality], settings: Settings) -> None:
        self.name, self.settings = name, settings
        self.model: Any = build(name, modalities, settings)
        self.model.to(memory_format=torch.channels_last)  # as `fit` has it
        self.prior: LatentPrior | None = None
        self.guidance = 1.0

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        modules = [self.model] if self.prior is None else [self.model, self.prior]
        return sum(p.numel() for module in modules for p in module.parameters())

    def data(self, dataset: MultimodalDataset) -> Any:
        """The training data in the form that `fit` takes."""
        return dataset

    def fit(
        self,
        data: MultimodalDataset,
        steps: int,
        clock: Callable[[], None] | None = None,
        precision: str = "32-true",
        progress: bool = True,
    ) -> None:
        """Train for so many steps through `shala_lite.training.fit`."""
        fit(
            self.model,
            data,
            steps=steps,
            before_step=clock,
            batch_size=self.settings.batch,
            learning_rate=self.settings.rate,
            seed=self.settings.seed,
            precision=precision,
            label=self.name,
            progress=progress,
        )

    def step_loss(self, batch: dict[str, Any], step: int) -> Tensor:
        """The loss of one batch, as the bare step has it."""
        device = next(self.model.parameters()).device
        generator = torch.Generator(device).manual_seed(step)
        return self.model.loss(**batch, generator=generator)["loss"]

    @torch.no_grad()
    def translate(self, x: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """All modalities {name: (B, *shape)} from the given ones {name: (B, *shape)}."""
        features = self.model.features(x)
        count = len(next(iter(x.values())))
        generator = torch.Generator(next(iter(features.values())).device).manual_seed(seed)
        if self.prior is None:
            return self.model.decode(self.model.posterior(features).sample(generator))
        samples = self.prior.sample(
            count,
            features,
            steps=self.settings.sample_steps,
            guidance=self.guidance,
            generator=generator,
        )
        return self.model.decode(samples.z)

    @torch.no_grad()
    def generate(self, n: int, seed: int) -> dict[str, Tensor]:
        """n sets {name: (n, *shape)} from the model's prior."""
        device = next(self.model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        if self.prior is not None:
            steps = self.settings.sample_steps
            return self.model.decode(self.prior.sample(n, steps=steps, generator=generator).z)
        z = torch.randn(n, self.model.latent_dim, generator=generator, device=device)
        return self.model.decode(z)

    def latents(self, data: MultimodalDataset) -> Any:
        """Posteriors and features of the training data: what the prior learns from."""
        return encode(self.model, data.batches(ENCODE_BATCH))

    def new_prior(self, latents: Any) -> LatentPrior:
        """An untrained diffusion prior for this model."""
        with seeded(self.settings.seed):
            prior = LatentPrior(
                self.model.names,
                latent_dim=self.settings.latent_dim,
                feature_dim=self.settings.feature_dim,
                **PRIOR,  # type: ignore[arg-type]
            ).to(latents.present.device)
        prior.standardise(latents)
        return prior

    def fit_prior(
        self,
        prior: LatentPrior,
        latents: Any,
        steps: int,
        clock: Callable[[], None] | None = None,
        progress: bool = True,
    ) -> None:
        """Train a diffusion prior for so many steps."""
        fit(
            prior,
            latents,
            steps=steps,
            before_step=clock,
            seed=self.settings.seed,
            precision="32-true",
            label="prior",
            progress=progress,
            **PRIOR_FIT,  # type: ignore[arg-type]
        )

    def choose_guidance(self, judges: Judges, val: MultimodalDataset) -> None:
        """Take the guidance with the best conditional coherence on the validation split."""
        assert self.prior is not None
        sweep = {}
        for guidance in GUIDANCES:
            found = evaluation.conditional(
                self.model,
                self.prior,
                judges,
                val,
                steps=self.settings.sample_steps,
                sampler="heun",
                guidance=guidance,
                seed=self.settings.seed,
            )
            sweep[guidance] = found.coherence.mean
        self.guidance = evaluation.best_guidance(sweep)
