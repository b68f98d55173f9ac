"""MultiVae's stage 1, on our nets: built, trained by its own trainer, sampled by its own methods.

MultiVae (Senellart et al. 2023) is never a dependency; `make bench-stage1` installs it into an
environment of its own. What it is given here is what it documents: encoders, decoders, a data
set, a trainer's configuration and a callback.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.settings import Settings
from shala_lite.datasets import MultimodalDataset
from shala_lite.experiments import seeded
from shala_lite.kinds import make_decoder
from shala_lite.modalities import Modality
from shala_lite.nets import ImageEncoder, linear_layers
from shala_lite.training import learning_rate_at

# alpha of MVTCAE on PolyMNIST, as its authors and MultiVae's case study have it.
ALPHA = 5 / 6


def load() -> SimpleNamespace:
    """The parts of MultiVae that are used.

    Raises:
        ModuleNotFoundError: it is not installed; says which command installs it.
    """
    try:
        from multivae import data, metrics, models, trainers
        from multivae.models.nn.base_architectures import BaseMultilatentEncoder
        from multivae.trainers.base.callbacks import TrainingCallback
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed here; `make bench-stage1` installs MultiVae into "
            ".venv-bench and runs the benchmark there"
        ) from None
    for name in logging.root.manager.loggerDict:  # it narrates every epoch on each of them
        if name.startswith("multivae"):
            logging.getLogger(name).setLevel(logging.WARNING)
    return SimpleNamespace(
        data=data,
        metrics=metrics,
        models=models,
        trainers=trainers,
        BaseEncoder=BaseEncoder,
        BaseMultilatentEncoder=BaseMultilatentEncoder,
        BaseDecoder=BaseDecoder,
        ModelOutput=ModelOutput,
        TrainingCallback=TrainingCallback,
    )


def build(name: str, modalities: Sequence[Modality], settings: Settings) -> Any:
    """An untrained model of MultiVae's by its name in `settings.PEERS`, on our nets."""
    peer = load()
    private = settings.private_dim if name == "multivae_mmvaeplus" else 0

    class Encoder(peer.BaseMultilatentEncoder if private else peer.BaseEncoder):
        """Our image encoder, then as many linear layers as before an expert of ours."""

        def __init__(self, modality: Modality) -> None:
            super().__init__()
            self.latent_dim, self.style_dim = settings.latent_dim, private
            self.net = ImageEncoder(modality, settings.feature_dim, settings.widths)
            size = settings.latent_dim + private
            layers = dict(depth=settings.depth, hidden=settings.hidden)
            self.head = linear_layers(settings.feature_dim, 2 * size, **layers)

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.head(self.net(x)).chunk(2, dim=-1)
            cut = settings.latent_dim
            found = dict(embedding=mean[:, :cut], log_covariance=log_variance[:, :cut])
            if private:
                found["style_embedding"] = mean[:, cut:]
                found["style_log_covariance"] = log_variance[:, cut:]
            return peer.ModelOutput(**found)

    class Decoder(peer.BaseDecoder):
        """Our decoder of the same kind."""

        def __init__(self, modality: Modality) -> None:
            super().__init__()
            sizes: dict[str, Any] = {"mask_sharpness": 1.0, "residual": 0}
            sizes |= {k: getattr(settings, k) for k in ("decoder", "decoder_hidden", "widths")}
            self.net = make_decoder(modality, settings.latent_dim + private, sizes)

        def forward(self, z: Tensor) -> Any:
            return peer.ModelOutput(reconstruction=self.net(z))

    names = [m.name for m in modalities]
    common = dict(
        n_modalities=len(names),
        latent_dim=settings.latent_dim,
        input_dims={m.name: m.shape for m in modalities},
        decoders_dist=dict.fromkeys(names, "laplace"),
        decoder_dist_params={name: {"scale": settings.likelihood_scale} for name in names},
        beta=settings.beta,
    )
    with seeded(settings.seed):
        nets = ({m.name: Encoder(m) for m in modalities}, {m.name: Decoder(m) for m in modalities})
        if name == "multivae_mopoe":
            return peer.models.MoPoE(peer.models.MoPoEConfig(**common), *nets)
        if name == "multivae_mvtcae":
            config = peer.models.MVTCAEConfig(**common, alpha=ALPHA)
            return peer.models.MVTCAE(config, *nets)
        config = peer.models.MMVAEPlusConfig(
            **common,
            K=1,
            modalities_specific_dim=private,
            prior_and_posterior_dist="normal",
            learn_modality_prior=True,
            loss="iwae_looser",
        )
        return peer.models.MMVAEPlus(config, *nets)


class _DoneError(Exception):
    """Ends MultiVae's trainer, which counts whole epochs, after a number of steps."""


def _pace(peer: SimpleNamespace, steps: int, rate: float, clock: Callable | None) -> Any:
    """A callback that sets our learning rate at every step and stops after the last."""

    class Pace(peer.TrainingCallback):
        """`optimizer` is set once the trainer has made it."""

        optimizer: torch.optim.Optimizer
        step = 0

        def set_rate(self) -> None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate_at(self.step, steps, rate)

        def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
            if clock:
                clock()
            self.step += 1
            if self.step == steps:
                raise _DoneError
            self.set_rate()

    return Pace()


@contextlib.contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Without MultiVae's progress bars, which it draws in any case."""
    if not quiet:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """MultiVae draws from the global random states; they are left as they were."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield
    np.random.set_state(state)  # noqa: NPY002


class Peer:
    """One of MultiVae's models.

    Args:
        name: in `settings.PEERS`.
        modalities: what is observed.
        settings: sizes and seed.
    """

    def __init__(self, name: str, modalities: Sequence[Modality], settings: Settings) -> None:
        self.name, self.settings, self.peer = name, settings, load()
        self.model: Any = build(name, modalities, settings)

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def data(self, dataset: MultimodalDataset) -> Any:
        """The training data as MultiVae holds them: floats in memory, read item by item."""
        x = {name: pixels.cpu().float() / 255 for name, pixels in dataset.observations.items()}
        return self.peer.data.MultimodalBaseDataset(data=x, labels=dataset.labels.cpu())

    def fit(
        self,
        data: Any,
        steps: int,
        clock: Callable[[], None] | None = None,
        precision: str = "32-true",
        progress: bool = True,
    ) -> None:
        """Train for so many steps through MultiVae's `BaseTrainer` and its loader.

        Where it is not timed, it gets the optimiser that ours has, fused.
        """
        if precision != "32-true":
            raise ValueError(f"precision: {precision!r}, MultiVae's trainer knows 32-true alone")
        settings, optimizer = self.settings, {"weight_decay": 0.0}
        if clock is None:  # it learns more a second; what is timed is the trainer as it comes
            optimizer["fused"] = True
        with tempfile.TemporaryDirectory() as folder, _quiet(not progress), _drawing(0):
            config = self.peer.trainers.BaseTrainerConfig(
                output_dir=folder,
                per_device_train_batch_size=settings.batch,
                num_epochs=math.ceil(steps / (len(data) // settings.batch)),
                optimizer_cls="AdamW",
                optimizer_params=optimizer,
                learning_rate=learning_rate_at(0, steps, settings.rate),
                drop_last=True,
                seed=settings.seed,
            )
            pace = _pace(self.peer, steps, settings.rate, clock)
            trainer = self.peer.trainers.BaseTrainer(
                self.model, data, training_config=config, callbacks=[pace]
            )
            pace.optimizer = trainer.optimizer
            with contextlib.suppress(_DoneError):
                trainer.train()
        self.model.eval()

    def step_loss(self, batch: dict[str, Any], step: int) -> Tensor:
        """The loss of one batch, as the bare step has it."""
        return self.model(self.peer.data.MultimodalBaseDataset(batch["x"])).loss

    @torch.no_grad()
    def translate(self, x: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """All modalities {name: (B, *shape)} from the given ones {name: (B, *shape)}."""
        given = list(x)
        if self.name == "multivae_mopoe":  # it encodes all, whatever is asked for
            shapes = self.model.input_dims
            count, device = len(x[given[0]]), x[given[0]].device
            blank = {m: torch.zeros(count, *shapes[m], device=device) for m in shapes}
            x = {**blank, **x}
        with _drawing(seed):
            return dict(self.model.predict(self.peer.data.MultimodalBaseDataset(x), given))

    @torch.no_grad()
    def generate(self, n: int, seed: int) -> dict[str, Tensor]:
        """n sets {name: (n, *shape)} from the model's prior."""
        self.model.device = next(self.model.parameters()).device
        with _drawing(seed):
            return dict(self.model.decode(self.model.generate_from_prior(n)))
