r"""Stage 1: what all variational autoencoders of several modalities share.

    h_m = encoder_m(x_m)                    deterministic feature of one modality
    q(z | x)                                from the features of all that are present
    ELBO(x) = E_q[ sum_m log p(x_m | z) ] - beta KL(q(z | x) || N(0, I))        [nats]

Encoders, decoders, likelihood and the bound are here. Models differ in q: `fused` makes one
Gaussian of all features; `experts`, the baselines, give each modality a Gaussian of its own and
combine those.

Source: Kingma and Welling 2014; beta as in Higgins et al. 2017.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite.alignment import Alignment
from shala_lite.distributions import Posterior, laplace_log_likelihood
from shala_lite.modalities import Modality
from shala_lite.nets import ImageDecoder, ImageEncoder, LayeredDecoder, apply_to_few, apply_where
from shala_lite.observed import check_names, check_observations, check_present

DECODERS: dict[str, Any] = {"convolutional": ImageDecoder, "layered": LayeredDecoder}


class MultimodalVAE(nn.Module):
    """What every stage 1 shares; a subclass says what the posterior is.

    Args:
        modalities: what is observed; the order is that of `present`.
        latent_dim: Z.
        feature_dim: D, size of each modality's feature.
        depth: linear layers between features and posterior.
        hidden: width of those layers.
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
        if decoder not in DECODERS:
            raise ValueError(f"decoder: {decoder!r}, expected one of {sorted(DECODERS)}")
        if likelihood_scale <= 0:
            raise ValueError(f"likelihood_scale: {likelihood_scale}, expected a positive number")
        self.config: dict[str, Any] = dict(
            latent_dim=latent_dim,
            feature_dim=feature_dim,
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
        sizes = (
            (widths, residual) if decoder == "convolutional" else (decoder_hidden, mask_sharpness)
        )
        self.decoders = nn.ModuleDict(
            {m.name: DECODERS[decoder](m, self._decoder_dim(), *sizes) for m in self.modalities}
        )
        self.alignment_weight = alignment
        if alignment:
            self.alignment = Alignment(self.names, feature_dim)

    def _decoder_dim(self) -> int:
        """How many numbers of z a decoder reads."""
        return self.latent_dim

    def _decoder_input(self, z: Tensor, index: int) -> Tensor:
        """What the decoder of modality `index` reads of z, shape (..., Z)."""
        return z

    def _posterior(self, features: Tensor, present: Tensor) -> Posterior:
        """The posterior from features (B, M, D), 0 where absent, and present (B, M) bool."""
        raise NotImplementedError

    def _observed(
        self, x: dict[str, Tensor], present: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        # in training on a GPU the loss tells of NaN, later, and nothing waits for the device
        finite = not (self.training and next(self.parameters()).is_cuda)
        return check_observations(self.modalities, x, present, finite=finite)

    def _features(self, x: dict[str, Tensor], present: Tensor | None) -> dict[str, Tensor]:
        found = {}
        for index, name in enumerate(self.names):
            if name in x:
                seen = x[name].float()  # autocast lowers it where it can
                where = None if present is None else present[:, index]
                found[name] = apply_where(self.encoders[name], seen, where, self.feature_dim)
        return found

    def features(self, x: dict[str, Tensor], present: Tensor | None = None) -> dict[str, Tensor]:
        """Deterministic features of the modalities in `x`, {name: (B, D)}, 0 where not present.

        Args:
            x: {name: (B, *shape)} of any non-empty subset, pixels in [0, 1].
            present: (B, M) bool, in the order of `names`; None means all that is in `x`.

        Raises:
            KeyError, ValueError: see `observed.check_observations`.
        """
        return self._features(*self._observed(x, present))

    def posterior(self, features: dict[str, Tensor], present: Tensor | None = None) -> Posterior:
        """q(z given the features of what is there).

        Args:
            features: {name: (B, D)} of any non-empty subset of the modalities.
            present: (B, M) bool, in the order of `names`; None means all that is in `features`.

        Raises:
            KeyError: an unknown modality.
            ValueError: no features, another shape, or an item with nothing present.
        """
        check_names("features", features, self.names)
        some = next(iter(features.values()))
        for name, h in features.items():
            if tuple(h.shape) != (len(some), self.feature_dim):
                raise ValueError(
                    f"features[{name!r}]: shape {tuple(h.shape)}, "
                    f"expected {(len(some), self.feature_dim)}"
                )
        present = check_present(features, present, self.names)
        if present is None:
            stacked = torch.stack([features[name] for name in self.names], dim=1)
            return self._posterior(stacked, torch.ones_like(stacked[..., 0], dtype=torch.bool))
        blank = torch.zeros_like(some)
        stacked = torch.stack([features.get(name, blank) for name in self.names], dim=1)
        return self._posterior(torch.where(present[..., None], stacked, 0), present)

    def generator_of(self, features: dict[str, Tensor], present: Tensor | None = None) -> Posterior:
        """Where z is drawn from to generate the rest: the posterior, unless the paper says else."""
        return self.posterior(features, present)

    def decode(self, z: Tensor) -> dict[str, Tensor]:
        """Mean observation of every modality, {name: (B, *shape)}, pixels in [0, 1]."""
        return {
            name: self.decoders[name](self._decoder_input(z, index))
            for index, name in enumerate(self.names)
        }

    def log_likelihoods(
        self, x: dict[str, Tensor], z: Tensor, wanted: Tensor | None = None
    ) -> dict[str, Tensor]:
        """log p(x_m | z) of every modality in `x`, in nats, {name: (..., B)}.

        Args:
            x: {name: (B, *shape)}, pixels in [0, 1].
            z: shape (..., B, Z): one or several draws for each item.
            wanted: (..., B, M) bool; the likelihood of what is not wanted is 0. None means all.
        """
        found, batch = {}, z.shape[-2]
        x = {name: seen.float() for name, seen in x.items()}
        flat = z.reshape(-1, z.shape[-1])
        for index, name in enumerate(self.names):
            if name not in x:
                continue
            inputs, decoder = self._decoder_input(flat, index), self.decoders[name]
            rows = None if wanted is None else wanted[..., index].reshape(-1).nonzero()[:, 0]
            if rows is None or len(rows) == len(flat):
                draws = decoder(inputs).unflatten(0, (-1, batch))
                each = [laplace_log_likelihood(x[name], d, self.likelihood_scale) for d in draws]
                found[name] = torch.stack(each).view(z.shape[:-1])
                continue
            nats = flat.new_zeros(len(flat))
            if len(rows):
                decoded = apply_to_few(decoder, inputs[rows])
                some = laplace_log_likelihood(x[name][rows % batch], decoded, self.likelihood_scale)
                nats = nats.index_copy(0, rows, some)
            found[name] = nats.view(z.shape[:-1])
        return found

    def elbo(
        self,
        x: dict[str, Tensor],
        present: Tensor | None = None,
        beta: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Evidence lower bound and its terms, each the mean over the batch, in nats.

        Returns:
            `elbo`; `kl`, the divergence before `beta`, in closed form for a Gaussian and estimated
            from one draw for a mixture; `log_likelihood`, summed over modalities; and
            `log_likelihood/<name>` for each (the mean over items that have the modality).
        """
        x, present = self._observed(x, present)
        return self._bound(x, self._features(x, present), present, beta, generator)

    def _bound(
        self,
        x: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None,
        beta: float,
        generator: torch.Generator | None,
        given: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The bound of what is `present`, with the posterior of what is `given`; None: the same."""
        posterior = self.posterior(features, present if given is None else given)
        z = posterior.sample(generator)
        nats = self.log_likelihoods(x, z, present)
        return self._terms(nats, posterior.rate(z).mean(), present, beta)

    def _terms(
        self, nats: dict[str, Tensor], kl: Tensor, present: Tensor | None, beta: float
    ) -> dict[str, Tensor]:
        total = torch.stack([each.mean() for each in nats.values()]).sum()
        terms = {"elbo": total - beta * kl, "kl": kl, "log_likelihood": total}
        for name, each in nats.items():
            share = 1.0 if present is None else present[:, self.names.index(name)].float().mean()
            terms[f"log_likelihood/{name}"] = each.mean() / (share + 1e-12)
        return terms

    def _objective(
        self,
        x: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None,
        beta: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What training maximises, a scalar in nats, and the terms to show beside it."""
        terms = self._bound(x, features, present, beta, generator)
        return terms.pop("elbo"), terms

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor | None = None,
        *,
        step: int | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Minus what the model maximises, beta warmed up by `step`, plus alignment; and terms."""
        beta = self.beta
        if step is not None and self.warmup:
            beta *= min(1.0, (step + 1) / self.warmup)
        x, present = self._observed(x, present)
        features = self._features(x, present)
        objective, terms = self._objective(x, features, present, beta, generator)
        loss = -objective
        if self.alignment_weight:
            if present is not None:  # its columns, of what x holds
                present = present[:, [self.names.index(name) for name in features]]
            terms["alignment"] = self.alignment(features, present)
            loss = loss + self.alignment_weight * terms["alignment"]
        return {"loss": loss, **terms}
