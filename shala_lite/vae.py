r"""Stage 1: what all variational autoencoders of several modalities share.

    h_m = encoder_m(x_m)                    deterministic feature of one modality
    q(z | x)                                from the features of all that are present
    ELBO(x) = E_q[ sum_m log p(x_m | z) ] - beta KL(q(z | x) || N(0, I))        [nats]
    trained on  E_q[ sum_m w_m log p(x_m | z) ] - beta KL,   w_m = 1 unless told

Encoders, decoders, likelihood and the bound are here. Models differ in q: `fused` makes one
Gaussian of all features; `experts`, the baselines, give each modality a Gaussian of its own and
combine those.

Source: Kingma and Welling 2014; beta as in Higgins et al. 2017.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite import kinds
from shala_lite.alignment import Alignment
from shala_lite.banks import make_decoders, make_encoders
from shala_lite.distributions import Posterior
from shala_lite.modalities import Modality
from shala_lite.observed import check_observations, stack_features, stacked


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
        text_width: channels of the text nets.
        decoder: of images: `convolutional`, of `widths` and `residual`, or `layered`, of what
            follows: see `nets.LayeredDecoder`.
        decoder_hidden: width of its hidden layers.
        decoder_layers: how many pictures lie over one another.
        decoder_stride: pixels from one colour of a picture to the next.
        mask_sharpness: of its masks in evaluation.
        shared_nets: one encoder and one decoder for all modalities that look alike, see `banks`.
        likelihood_scale: Laplace scale b of every image modality, in pixel units.
        likelihood_weights: {name: w_m} in training, or pairs; 1 where a modality is not named. A
            word of a few nats beside a picture of thousands is learned last, or never.
        beta: weight of the divergence in the training loss.
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
        text_width: int = 64,
        decoder: str = "convolutional",
        decoder_hidden: int = 512,
        decoder_layers: int = 2,
        decoder_stride: int = 1,
        mask_sharpness: float = 1.0,
        shared_nets: bool = False,
        likelihood_scale: float = 0.1,
        likelihood_weights: Any = None,
        beta: float = 1.0,
        alignment: float = 0.0,
    ) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("modalities: empty, expected at least one Modality")
        if decoder not in kinds.DECODERS:
            raise ValueError(f"decoder: {decoder!r}, expected one of {sorted(kinds.DECODERS)}")
        if likelihood_scale <= 0:
            raise ValueError(f"likelihood_scale: {likelihood_scale}, expected a positive number")
        weights = kinds.check_weights(likelihood_weights or {}, [m.name for m in modalities])
        self.config: dict[str, Any] = dict(
            latent_dim=latent_dim,
            feature_dim=feature_dim,
            depth=depth,
            hidden=hidden,
            widths=list(widths),
            residual=residual,
            text_width=text_width,
            decoder=decoder,
            decoder_hidden=decoder_hidden,
            decoder_layers=decoder_layers,
            decoder_stride=decoder_stride,
            mask_sharpness=mask_sharpness,
            shared_nets=shared_nets,
            likelihood_scale=likelihood_scale,
            likelihood_weights=weights,
            beta=beta,
            alignment=alignment,
        )
        self.modalities = tuple(modalities)
        self.names = tuple(m.name for m in self.modalities)
        self.latent_dim, self.feature_dim = latent_dim, feature_dim
        self.likelihood_scale, self.beta = likelihood_scale, beta
        self.encoders = make_encoders(self.modalities, self.config)
        self.decoders = make_decoders(self.modalities, self._decoder_dim(), self.config)
        self.alignment_weight = alignment
        if alignment:
            self.alignment = Alignment(self.names, feature_dim)

    def _decoder_dim(self) -> int:
        """How many numbers of z a decoder reads."""
        return self.latent_dim

    def _decoder_input(self, z: Tensor, index: int) -> Tensor:
        """What the decoder of modality `index` reads of z, shape (..., Z)."""
        return z

    def _posterior(self, features: Tensor, present: Tensor | None) -> Posterior:
        """The posterior from features (B, M, D), 0 where absent; present (B, M) or None for all."""
        raise NotImplementedError

    def _observed(
        self, x: dict[str, Tensor], present: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        # in training on a GPU the loss tells of NaN, later, and nothing waits for the device
        finite = not (self.training and next(self.parameters()).is_cuda)
        return check_observations(self.modalities, x, present, finite=finite)

    def _features(self, x: dict[str, Tensor], present: Tensor | None) -> dict[str, Tensor]:
        return self.encoders(x, present)

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
        return self._posterior(*stack_features(features, present, self.names, self.feature_dim))

    def generator_of(self, features: dict[str, Tensor], present: Tensor | None = None) -> Posterior:
        """Where z is drawn from to generate the rest: the posterior, unless the paper says else."""
        return self.posterior(features, present)

    def decode(self, z: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What z says of every modality, {name: (B, *shape)}.

        Of images the mean, pixels in [0, 1]; of texts the most likely token at every position, or
        one that is drawn where there is a `generator`.
        """
        inputs = {name: self._decoder_input(z, at) for at, name in enumerate(self.names)}
        return dict(self.decoders.shown(inputs, generator))

    def log_likelihoods(
        self, x: dict[str, Tensor], z: Tensor | dict[str, Tensor], wanted: Tensor | None = None
    ) -> dict[str, Tensor]:
        """log p(x_m | z) of every modality in `x`, in nats, {name: (..., B)}.

        Args:
            x: {name: (B, *shape)}, pixels in [0, 1] or token ids.
            z: shape (..., B, Z): one or several draws for each item; or such draws by name, as
                many for each, where every modality has its own.
            wanted: (..., B, M) bool; the likelihood of what is not wanted is 0. None means all.
        """
        return self._nats(x, z, self._said(x, z, wanted))

    def _nats(
        self, x: dict[str, Tensor], z: Tensor | dict[str, Tensor], said: Iterable[kinds.Said]
    ) -> dict[str, Tensor]:
        some = next(iter(z.values())) if isinstance(z, dict) else z
        held = [m for m in self.modalities if m.name in x]
        return kinds.log_likelihoods(held, x, said, some[..., 0], self.likelihood_scale)

    def _said(
        self, x: dict[str, Tensor], z: Tensor | dict[str, Tensor], wanted: Tensor | None
    ) -> Iterator[kinds.Said]:
        """What the decoders say of all draws, one below the other; arguments as above."""
        at = {name: index for index, name in enumerate(self.names) if name in x}
        of = z if isinstance(z, dict) else dict.fromkeys(at, z)
        inputs = {n: self._decoder_input(of[n].flatten(0, -2), at[n]) for n in at}
        asked = {}
        if wanted is not None:
            asked = {name: wanted[..., index].reshape(-1) for name, index in at.items()}
        texts = {n: x[n] for n in at if self.modalities[at[n]].kind == "text"}
        return self.decoders.of_asked(inputs, texts, asked)

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
        _, terms, _ = self._bound(x, self._features(x, present), present, beta, generator)
        return {"elbo": terms["log_likelihood"] - beta * terms["kl"], **terms}

    def _bound(
        self,
        x: dict[str, Tensor],
        features: dict[str, Tensor],
        present: Tensor | None,
        beta: float,
        generator: torch.Generator | None,
        given: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], list[kinds.Said]]:
        """The weighted bound of what is `present`, with the posterior of what is `given`, if other.

        Returns:
            The bound, a scalar in nats; the terms that `_terms` gives; and what was decoded.
        """
        if given is None:
            posterior = self.posterior(features, present)
        else:  # a mask that was drawn needs no check, and on a GPU no step that waits for one
            posterior = self._posterior(stacked(features, given, self.names), given)
        z = posterior.sample(generator)
        said = [*self._said(x, z, present)]
        nats = self._nats(x, z, said)
        kl = posterior.rate(z).mean()
        return self._weighted(nats).mean() - beta * kl, self._terms(nats, kl, present), said

    def _weighted(self, nats: dict[str, Tensor]) -> Tensor:
        """sum_m w_m log p(x_m | z), of the shape that each of `nats` has."""
        weights = self.config["likelihood_weights"]
        return torch.stack([weights.get(name, 1.0) * each for name, each in nats.items()]).sum(0)

    def _terms(
        self, nats: dict[str, Tensor], kl: Tensor, present: Tensor | None
    ) -> dict[str, Tensor]:
        total = torch.stack([each.mean() for each in nats.values()]).sum()
        terms = {"kl": kl, "log_likelihood": total}
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
        return self._bound(x, features, present, beta, generator)[:2]

    def loss(
        self,
        x: dict[str, Tensor],
        present: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Minus what the model maximises, plus alignment; and terms."""
        x, present = self._observed(x, present)
        features = self._features(x, present)
        objective, terms = self._objective(x, features, present, self.beta, generator)
        loss = -objective
        if self.alignment_weight:
            if present is not None:  # its columns, of what x holds
                present = present[:, [self.names.index(name) for name in features]]
            terms["alignment"] = self.alignment(features, present)
            loss = loss + self.alignment_weight * terms["alignment"]
        return {"loss": loss, **terms}
