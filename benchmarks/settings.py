"""What a run is asked for: every size and budget, checked before anything starts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

# Ours, then MultiVae's; each in a process of its own, in this order.
OURS = ("concat+prior", "concat", "mopoe", "mmvaeplus")
PEERS = ("multivae_mvtcae", "multivae_mopoe", "multivae_mmvaeplus")
MODELS = (*OURS, *PEERS)

LARGEST_BATCH = 256  # of what is trained beside them: the diffusion prior; the judges take 128


def _option(default: Any, says: str, choices: Sequence[str] | None = None) -> Any:
    metadata = {"help": says, "choices": choices}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """One option each; the defaults are those of the book's `quick` profile where it has them.

    Raises:
        ValueError: a value out of range; names the option.
    """

    source: str = _option("embedded", "source of PolyMNIST", ("embedded", "real"))
    root: str = _option("", "folder of the real data; empty is the usual one")
    train_size: int = _option(10_000, "training sets")
    test_size: int = _option(1_000, "test sets that are scored, and sets that are generated")
    seconds: float = _option(120.0, "training seconds of each model, stage 2 included")
    models: tuple[str, ...] = _option(MODELS, "which models", MODELS)
    batch: int = _option(64, "items in a step")
    rate: float = _option(2e-3, "peak of the one-cycle learning rate of AdamW")
    seed: int = _option(0, "of weights, batches and samples")
    threads: int = _option(1, "CPU threads of each process")
    widths: tuple[int, ...] = _option((16, 32, 64), "channels of encoders and decoders")
    decoder: str = _option("layered", "kind of decoder", ("convolutional", "layered"))
    decoder_hidden: int = _option(256, "width of a layered decoder's hidden layers")
    feature_dim: int = _option(128, "numbers in a feature")
    depth: int = _option(4, "linear layers from features to a posterior, or to an expert")
    hidden: int = _option(512, "width of those layers")
    latent_dim: int = _option(32, "numbers in the shared latent")
    private_dim: int = _option(32, "numbers in each private latent of MMVAE+")
    likelihood_scale: float = _option(0.1, "Laplace scale of every pixel")
    beta: float = _option(4.0, "weight of the divergence, the same for all")
    alignment: float = _option(30.0, "weight of our fused model's contrastive term")
    prior_share: float = _option(0.4, "share of the seconds that the diffusion prior gets")
    sample_steps: int = _option(8, "time steps of the diffusion sampler")
    judge_width: int = _option(24, "channels of the judges' first convolution")
    judge_steps: int = _option(250, "training steps of each judge")
    rounds: int = _option(6, "rounds of timing; in each, every model has its turn")
    round_steps: int = _option(6, "timed steps of a turn, after two that are not")

    def __post_init__(self) -> None:
        for option in fields(self):
            value, says = getattr(self, option.name), option.name.replace("_", "-")
            choices = option.metadata["choices"]
            values = value if isinstance(value, tuple) else (value,)
            if choices and not (values and set(values) <= set(choices)):
                raise ValueError(f"--{says}: {value!r}, expected of {', '.join(choices)}")
            lowest = 0 if option.name in ("seed", "alignment") else 1e-9
            if not values or any(isinstance(v, int | float) and v < lowest for v in values):
                bound = "0 or more" if lowest == 0 else "more than 0"
                raise ValueError(f"--{says}: {value!r}, expected {bound}")
        if not self.prior_share < 1:
            raise ValueError(f"--prior-share: {self.prior_share!r}, expected less than 1")
        if self.train_size < LARGEST_BATCH:
            raise ValueError(f"--train-size: {self.train_size}, expected {LARGEST_BATCH} or more")
        if self.batch > self.train_size:
            raise ValueError(f"--batch: {self.batch}, expected at most --train-size")


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line; a bad value ends the program with one line."""
    parser = argparse.ArgumentParser(
        prog="make bench-stage1", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for option in fields(Settings):
        many = option.default is MISSING
        default = option.default_factory() if many else option.default  # type: ignore[misc]
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            default=default,
            type=type(default[0] if many else default),
            nargs="+" if many else None,
            choices=option.metadata["choices"],
            help=option.metadata["help"],
        )
    given = vars(parser.parse_args(arguments))
    try:
        return Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    except ValueError as error:
        parser.error(str(error))
