"""The one training loop, for stage 1, stage 2 and the judges.

What happens at step k is a function of (seed, k) alone: the items, the noise and the learning
rate. A checkpoint therefore needs no random state, and a run that was killed goes on bit for bit
as if it had not been. The model has a `loss(**batch, generator=)` that returns scalars by name,
`loss` first; the data have a length and `batch(indices)`, and live on the device. On a GPU the step
is recorded once and replayed: see `recorded`.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from shala_lite.checkpoints import load_checkpoint, save_checkpoint
from shala_lite.recorded import RecordedStep

LOG_POINTS = 200
# Fabric says at every set-up which precision it uses, through the logger of its sister package.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Batches(Protocol):
    """Data that fit in memory: a length, and the arguments of the loss for some items."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> dict[str, Any]: ...


class DivergedError(RuntimeError):
    """The loss, or the model, no longer consists of numbers."""


@dataclass
class History:
    """Loss terms, averaged over the steps since the previous entry.

    `seconds` counts the time spent in training over all sessions of a resumed run, `items` what
    it saw, each as often as it was seen.
    """

    steps: list[int] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    items: int = 0

    def append(self, step: int, means: dict[str, float]) -> None:
        """Add one entry."""
        self.steps.append(step)
        for name, value in means.items():
            self.terms.setdefault(name, []).append(value)


def learning_rate_at(step: int, steps: int, peak: float, warmup: float = 0.1) -> float:
    """One cycle: a linear rise over the first `warmup` share of the steps, then half a cosine."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _mix(*parts: int | str) -> int:
    """A seed from several numbers and words, the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _indices(
    count: int, batch_size: int, seed: int, start: int, device: torch.device
) -> Iterator[Tensor]:
    """Batches of step `start`, `start` + 1, ...: every epoch a fresh permutation, tail dropped."""
    per_epoch = count // batch_size
    step = start
    while True:
        epoch = step // per_epoch
        shuffle = torch.Generator().manual_seed(_mix(seed, "epoch", epoch))
        order = torch.randperm(count, generator=shuffle).to(device)
        for position in range(step % per_epoch, per_epoch):
            yield order[position * batch_size : (position + 1) * batch_size]
            step += 1


class _Average:
    """Exponential moving average of the floating-point state, up to date after every step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = [v for v in model.state_dict().values() if v.is_floating_point()]
        self.shadow = [v.clone() for v in self.live]

    def update(self, step: int) -> None:
        # early on a long memory would average in the initialisation
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, self.live, 1 - decay)

    def write_back(self) -> None:
        torch._foreach_copy_(self.live, self.shadow)


def fit(
    model: nn.Module,
    data: Batches,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    ema: float | None = None,
    seed: int = 0,
    precision: Any = None,
    accelerator: str = "auto",
    folder: Path | str | None = None,
    checkpoint_seconds: float = 30.0,
    label: str = "training",
    progress: bool = True,
    before_step: Callable[[], None] | None = None,
) -> History:
    """Train `model` in place and leave it in evaluation mode on the device it was trained on.

    Args:
        model: has `loss(**batch, generator=) -> {"loss": ..., other terms}`.
        data: see `Batches`.
        steps: optimiser steps, at least 1.
        batch_size: items a step, at most len(data).
        learning_rate: peak of the one-cycle rate.
        weight_decay: of AdamW.
        clip: largest gradient norm.
        ema: decay in (0, 1) of the moving average that replaces the weights at the end; None for
            none.
        seed: fixes the order of the data and all noise.
        precision, accelerator: as in Lightning Fabric; precision None is `bf16-mixed` on a CUDA
            GPU and `32-true` elsewhere.
        folder: where checkpoints go; None for none. A run found there is continued.
        checkpoint_seconds: at least so long between two checkpoints, which are written at points of
            the history; 0 is one at each of them.
        label: name on the progress bar.
        progress: whether to show it.
        before_step: called at every step before anything else.

    Raises:
        ValueError: an argument out of range, or a checkpoint of another run in `folder`.
        DivergedError: a loss that is not finite, or weights that are not after a step whose loss
            is; names the step, the terms and the last good checkpoint.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}, expected at least 1")
    if not 1 <= batch_size <= len(data):
        raise ValueError(f"batch_size: {batch_size}, expected 1 to {len(data)}, the data's length")
    if checkpoint_seconds < 0:
        raise ValueError(f"checkpoint_seconds: {checkpoint_seconds}, expected at least 0")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema: {ema}, expected a number between 0 and 1, or None")
    if precision is None:
        on_gpu = accelerator != "cpu" and torch.cuda.is_available()
        precision = "bf16-mixed" if on_gpu else "32-true"
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    model.to(fabric.device)
    cast(Any, model).to(memory_format=torch.channels_last).train()  # faster convolutions
    on_gpu = fabric.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        model.parameters(),
        # a graph reads the rate where it lies
        lr=torch.tensor(learning_rate, device=fabric.device) if on_gpu else learning_rate,
        weight_decay=weight_decay,
        fused=True,
        capturable=on_gpu,
    )
    optimizer._warned_capturable_if_run_uncaptured = True  # the first steps are, on purpose
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    average = _Average(model, ema) if ema else None
    identity: dict[str, Any] = dict(steps=steps, batch_size=batch_size, items=len(data), seed=seed)
    identity |= dict(learning_rate=learning_rate, weight_decay=weight_decay, clip=clip, ema=ema)
    identity |= dict(precision=str(precision), data=getattr(data, "fingerprint", None))
    identity |= dict(model=type(model).__name__, config=repr(getattr(model, "config", None)))
    history, start, saved = History(), 0, None
    folder = None if folder is None else Path(folder)
    if folder is not None:
        saved, state = load_checkpoint(folder, identity, fabric.device)
        if state:
            start, history = state["step"], History(**state["history"])
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if average:
                torch._foreach_copy_(average.shadow, state["average"])

    def checkpoint(folder: Path, step: int) -> Path:
        history.seconds = earlier + time.perf_counter() - began
        return save_checkpoint(
            folder,
            identity,
            {
                "step": step,
                "history": asdict(history),
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.shadow if average else [],
            },
        )

    loss: Any = model.loss
    generator = torch.Generator(fabric.device)
    names: list[str] = []  # of the terms of the loss

    def take(indices: Tensor) -> Tensor:
        with fabric.autocast():
            terms = loss(**data.batch(indices), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(terms["loss"])
        fabric.clip_gradients(wrapped, wrapped_optimizer, max_norm=clip, error_if_nonfinite=False)
        optimizer.step()
        names[:] = terms
        return torch.stack([value.detach().float() for value in terms.values()])

    recorded = RecordedStep(take, generator) if on_gpu else None
    pending: list[tuple[int, Tensor]] = []
    log_every = max(1, steps // LOG_POINTS)
    earlier, began = history.seconds, time.perf_counter()
    last = began
    batches = _indices(len(data), batch_size, seed, start, fabric.device)
    bar = tqdm(
        total=steps, initial=start, desc=label, disable=not progress, mininterval=1.0, leave=False
    )
    for step in range(start, steps):
        if before_step:
            before_step()
        rate, noise = learning_rate_at(step, steps, learning_rate), _mix(seed, "step", step)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"].fill_(rate) if on_gpu else rate
        if recorded:
            values = recorded(next(batches), noise)
        else:
            generator.manual_seed(noise)
            values = take(next(batches))
        if average:
            average.update(step)
        pending.append((step, values))
        bar.update()
        if (step + 1) % log_every == 0 or step + 1 == steps:
            means = _drain(names, pending, saved)
            history.append(step + 1, means)
            history.items = (step + 1) * batch_size
            shown = {k: f"{v:.4g}" for k, v in means.items() if "/" not in k}
            bar.set_postfix(shown, refresh=False)
            waited = time.perf_counter() - last
            if waited >= checkpoint_seconds or step + 1 == steps:
                if not _finite(model):  # before it is kept
                    problem = f"weights not finite after step {step}"
                    raise DivergedError(_report(problem, means, saved))
                last = time.perf_counter()
                if folder is not None:
                    saved = checkpoint(folder, step + 1)
    bar.close()
    history.seconds = earlier + time.perf_counter() - began
    if average:
        average.write_back()
    cast(Any, model).to(memory_format=torch.contiguous_format).eval()
    return history


def _drain(
    names: list[str], pending: list[tuple[int, Tensor]], saved: Path | None
) -> dict[str, float]:
    """Mean of each term since the last call; the one place that waits for the device."""
    values = torch.stack([of_step for _, of_step in pending]).cpu()
    bad = (~values.isfinite().all(1)).nonzero()
    if len(bad):
        row = int(bad[0])
        terms = {name: float(value) for name, value in zip(names, values[row], strict=True)}
        raise DivergedError(_report(f"loss not finite at step {pending[row][0]}", terms, saved))
    pending.clear()
    return {name: float(value) for name, value in zip(names, values.mean(0), strict=True)}


def _finite(model: nn.Module) -> bool:
    """Whether all weights are numbers; a finite loss can have a gradient that is not."""
    return bool(torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all())


def _report(problem: str, terms: dict[str, float], saved: Path | None) -> str:
    last = f"last good checkpoint: {saved}" if saved else "no checkpoint was kept"
    return f"{problem}: {terms}; {last}"
