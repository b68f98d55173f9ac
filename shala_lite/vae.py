r"""Stage 1: a variational autoencoder with one posterior fused from all modalities.

    h_m = encoder_m(x_m)                    deterministic feature of one modality
    q(z | x) = N(mean(h), std(h)^2)         one Gaussian, from the fused features
    ELBO(x) = E_q[ sum_m log p(x_m | z) ] - beta KL(q(z | x) || N(0, I))        [nats]

Source: ShaLa, arXiv 2508.17376, section 3.3; beta as in Higgins et al. 2017.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite.alignment import Alignment
from shala_lite.distributions import DiagonalGaussian, laplace_log_likelihood
from shala_lite.fusion import FUSIONS
from shala_lite.modalities import Modality
from shala_lite.nets import ImageDecoder, ImageEncoder, LayeredDecoder

DECODERS: dict[str, Any] = {"convolutional": ImageDecoder, "layered": LayeredDecoder}


class FusedVAE(nn.Module):
    """Multimodal VAE with deterministic features fused into one Gaussian posterior.

    Args:
        modalities: what is observed; the order fixes the order of fusion.
        latent_dim: Z.
        feature_dim: D, size of each modality's feature.
        fusion: how features are combined, a name in `fusion.FUSIONS`.
        depth: linear layers in the fusion network.
        hidden: width of the fusion network.
        widths: channels of the image nets, from fine to coarse.
        residual: residual blocks at each resolution of the image nets.
        decoder: `convolutional`, of `widths` and `residual`, or `layered`, of `decoder_hidden`.
        decoder_hidden: width of the hidden layers of a layered decoder.
        mask_sharpness: of its mask in evaluation, see `nets.LayeredDecoder`.
        likelihood_scale: Laplace scale b of every image modality, in pixel units.
        beta: weight of the divergence in the training loss.
        warmup: steps over which that weight rises from 0.
        alignment: weight, in nats per nat, of the contrastive term between features.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        *,
        latent_dim: int = 64,
        feature_dim: int = 512,
        fusion: str = "concat",
        depth: int = 4,
        hidden: int = 512,
        widths: Sequence[int] = (64, 128, 256),
        residual: int = 0,
        decoder: str = "convolutional",
        decoder_hidden: int = 512,
        mask_sharpness: float = 1.0,
        likelihood_scale: float = 0.1,
        beta: float = 1.0,
        warmup: int = 0,
        alignment: float = 0.0,
    ) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("modalities: empty, expected at least one Modality")
        if fusion not in FUSIONS:
            raise ValueError(f"fusion: {fusion!r}, expected one of {sorted(FUSIONS)}")
        if decoder not in DECODERS:
            raise ValueError(f"decoder: {decoder!r}, expected one of {sorted(DECODERS)}")
        if likelihood_scale <= 0:
            raise ValueError(f"likelihood_scale: {likelihood_scale}, expected a positive number")
        self.config: dict[str, Any] = dict(
            latent_dim=latent_dim,
            feature_dim=feature_dim,
            fusion=fusion,
            depth=depth,
            hidden=hidden,
            widths=list(widths),
            residual=residual,
            decoder=decoder,
            decoder_hidden=decoder_hidden,
            mask_sharpness=mask_sharpness,
            likelihood_scale=likelihood_scale,
            beta=beta,
            warmup=warmup,
            alignment=alignment,
        )
        self.modalities = tuple(modalities)
        self.names = tuple(m.name for m in self.modalities)
        self.latent_dim, self.feature_dim = latent_dim, feature_dim
        self.likelihood_scale, self.beta, self.warmup = likelihood_scale, beta, warmup
        self.encoders = nn.ModuleDict(
            {m.name: ImageEncoder(m, feature_dim, widths, residual) for m in self.modalities}
        )
        self.fusion = FUSIONS[fusion](
            len(self.modalities), feature_dim, latent_dim, depth=depth, hidden=hidden
        )
        sizes = (
            (widths, residual) if decoder == "convolutional" else (decoder_hidden, mask_sharpness)
        )
        self.decoders = nn.ModuleDict(
            {m.name: DECODERS[decoder](m, latent_dim, *sizes) for m in self.modalities}
        )
        self.alignment_weight = alignment
        if alignment:
            self.alignment = Alignment(self.names, feature_dim)

    def _check_names(self, argument: str, given: dict[str, Tensor]) -> None:
        unknown = sorted(set(given) - set(self.names))
        if unknown:
            known = list(self.names)
            raise KeyError(f"{argument}: unknown modalities {unknown}, expected among {known}")

    def features(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Deterministic features of the modalities in `x`, {name: (B, D)}."""
        self._check_names("x", x)
        return {name: self.encoders[name](x[name]).float() for name in self.names if name in x}

    def posterior(
        self, features: dict[str, Tensor], present: Tensor | None = None
    ) -> DiagonalGaussian:
        """q(z given the features); a modality that is missing or not present gets a stand-in.

        Args:
            features: {name: (B, D)} of any non-empty subset of the modalities.
            present: (B, M) bool, in the order of `names`; None means all that is in `features`.
        """
        if not features:
            raise ValueError("features: empty, expected at least one modality")
        self._check_names("features", features)
        some = next(iter(features.values()))
        given = torch.tensor([name in features for name in self.names], device=some.device)
        given = given.expand(len(some), -1)
        if present is not None and present.shape != given.shape:
            raise ValueError(
                f"present: shape {tuple(present.shape)}, expected {tuple(given.shape)}"
            )
        present = given if present is None else given & present.to(some.device)
        blank = torch.zeros_like(some)
        stacked = torch.stack([features.get(name, blank) for name in self.names], dim=1)
        return DiagonalGaussian(*self.fusion(stacked, present))

    def decode(self, z: Tensor) -> dict[str, Tensor]:
        """Mean observation of every modality, {name: (B, *shape)}, pixels in [0, 1]."""
        return {name: self.decoders[name](z) for name in self.names}

    def elbo(
        self,
        x: dict[str, Tensor],
        present: Tensor | None = None,
        beta: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Evidence lower bound and its terms, each the mean over the batch, in nats.

        Returns:
            `elbo`; `kl`, the divergence before `beta`; `log_likelihood`, summed over modalities;
            and `log_likelihood/<name>` for each (the mean over items that have the modality).
        """
        return self._elbo(x, self.features(x), present, beta, generator)

    def _elbo(
        self,
        x: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None,
        beta: float,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        posterior = self.posterior(features, present)
        decoded = self.decode(posterior.sample(generator))
        kl = posterior.kl().mean()
        terms: dict[str, Tensor] = {}
        total = torch.zeros_like(kl)
        for index, name in enumerate(self.names):
            if name not in x:
                continue
            nats = laplace_log_likelihood(x[name], decoded[name], self.likelihood_scale)
            weight = torch.ones_like(nats)
            if present is not None:
                weight = present[:, index].to(nats.device, nats.dtype)
            total = total + (nats * weight).mean()
            terms[f"log_likelihood/{name}"] = (nats * weight).sum() / weight.sum().clamp(min=1)
        return {"elbo": total - beta * kl, "kl": kl, "log_likelihood": total, **terms}

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor | None = None,
        *,
        step: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Minus the ELBO, beta warmed up by `step`, plus alignment; and its terms, in nats."""
        beta = self.beta
        if step is not None and self.warmup:
            beta *= min(1.0, (step + 1) / self.warmup)
        features = self.features(x)
        terms = self._elbo(x, features, present, beta, generator)
        loss = -terms.pop("elbo")
        if self.alignment_weight:
            if present is not None:  # its columns, of what x holds
                present = present[:, [self.names.index(name) for name in features]]
            terms["alignment"] = self.alignment(features, present)
            loss = loss + self.alignment_weight * terms["alignment"]
        return {"loss": loss, **terms}
