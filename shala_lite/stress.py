"""Sources that go missing, and sources that lie: how translation holds up.

Every item deals its modalities out once: one is the target and never given, the next one or more
are spoilt, the others are good sources. All settings share this deal and the noise of the sampler,
so that they are compared paired: a setting differs from the next by one source, or by a strength,
and by nothing else.

    noise       x' = (1 - s) x + s u,    u uniform in [0, 1] for each pixel and channel
    occlusion   a grey rectangle with the share s of the area, at a random place
    odd one     another item's view, of another class

Of a text, noise puts a token drawn from the whole vocabulary, padding too, in place of each with
probability s; occlusion makes padding of a share s of its positions, one after another.

Whatever is drawn comes from a generator on the CPU: the same seed gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shala_lite import evaluation
from shala_lite.datasets import MultimodalDataset
from shala_lite.flow_map import FlowMap
from shala_lite.judges import Judges
from shala_lite.modalities import Modality
from shala_lite.prior import LatentPrior
from shala_lite.vae import MultimodalVAE

KINDS = ("noise", "occlusion")


class Deal(NamedTuple):
    """Which modality plays which part, item by item: `rank` (N, M) int64, on the CPU.

    Rank 0 is the target. Spoilt views come next, from rank 1 up; good ones from the last rank down.
    """

    rank: Tensor

    @property
    def target(self) -> Tensor:
        """Position (N,) of the target among the modalities."""
        return self.rank.argmin(1)

    def spoilt(self, count: int = 1) -> Tensor:
        """(N, M) bool, the views that are spoilt."""
        return (self.rank >= 1) & (self.rank <= count)

    def given(self, good: int, spoilt: int = 0) -> Tensor:
        """(N, M) bool, the sources: so many good ones and so many spoilt ones.

        Raises:
            ValueError: no source, or no room for them beside the target.
        """
        most = self.rank.shape[1] - 1
        if min(good, spoilt) < 0 or not 1 <= good + spoilt <= most:
            raise ValueError(f"good, spoilt: {good}, {spoilt}, expected 1 to {most} in all")
        return (self.rank > most - good) | self.spoilt(spoilt)


class Outcome(NamedTuple):
    """Whether the target shows its item's class, and whether that of the odd one: (N,) bool."""

    right: Tensor
    odd: Tensor


def deal(n: int, modalities: int, seed: int) -> Deal:
    """A uniform random order of the modalities for each of n items."""
    generator = torch.Generator().manual_seed(seed)
    return Deal(torch.rand(n, modalities, generator=generator).argsort(1).argsort(1))


def spoil(
    data: MultimodalDataset, which: Tensor, kind: str, strength: float, seed: int
) -> MultimodalDataset:
    """The same items, with the views at `which` damaged.

    What is drawn depends on the seed and not on the strength.

    Args:
        data: of images, texts or both.
        which: (N, M) bool.
        kind: one of `KINDS`.
        strength: s, from 0, which changes nothing, to 1, which leaves nothing.
        seed: of what is drawn.

    Raises:
        ValueError: another kind, strength or shape.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r}, expected one of {KINDS}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: {strength}, expected 0 to 1")
    damage = {"noise": _noisy, "occlusion": _occluded}[kind]
    generator = torch.Generator().manual_seed(seed)
    damaged = {
        m.name: damage(m, data.observations[m.name], strength, generator) for m in data.modalities
    }
    return _exchange(data, which, damaged, f"{kind} {strength:g} on some views")


def with_odd_one(
    data: MultimodalDataset, which: Tensor, seed: int
) -> tuple[MultimodalDataset, Tensor]:
    """The same items, with the views at `which` taken from another item of another class.

    Returns:
        The items, and the class (N,) that the odd views show.

    Raises:
        ValueError: another shape, or only one class.
    """
    labels = data.labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    if len(labels.unique()) < 2:
        raise ValueError("data: one class only, expected at least two")
    other = torch.randint(len(labels), labels.shape, generator=generator)
    while (same := labels[other] == labels).any():
        other[same] = torch.randint(len(labels), (int(same.sum()),), generator=generator)
    donors = {name: x[other.to(x.device)] for name, x in data.observations.items()}
    return _exchange(data, which, donors, "some views are of another class"), labels[other]


def _exchange(
    data: MultimodalDataset, which: Tensor, new: Mapping[str, Tensor], note: str
) -> MultimodalDataset:
    """The same items with `new` in place of the views at `which`."""
    expected = (len(data), len(data.modalities))
    if which.dtype != torch.bool or tuple(which.shape) != expected:
        raise ValueError(f"which: {tuple(which.shape)} {which.dtype}, expected {expected} bool")
    observations = {}
    for index, (name, x) in enumerate(data.observations.items()):
        at = which[:, index].to(x.device).view(-1, *[1] * (x.ndim - 1))
        observations[name] = torch.where(at, new[name], x)
    return replace(data, observations=observations, note=f"{data.note}; {note}", _fingerprint=None)


def _noisy(m: Modality, x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    if m.vocabulary is not None:
        replaced = torch.rand(x.shape, generator=generator) < strength
        drawn = torch.randint(len(m.vocabulary), x.shape, generator=generator, dtype=x.dtype)
        return torch.where(replaced.to(x.device), drawn.to(x.device), x)
    noise = torch.randint(256, x.shape, generator=generator, dtype=torch.uint8).to(x.device)
    return ((1 - strength) * x.float() + strength * noise.float()).round().to(torch.uint8)


def _occluded(m: Modality, x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    sizes = m.shape[-2:]  # rows and columns, or positions
    covered = []  # (N, size) each
    for size, at in zip(sizes, torch.rand(len(sizes), len(x), generator=generator)):
        side = round(strength ** (1 / len(sizes)) * size)
        start = (at * (size - side + 1)).long()[:, None]
        ticks = torch.arange(size)
        covered.append((ticks >= start) & (ticks < start + side))
    if m.kind == "text":
        return torch.where(covered[0].to(x.device), torch.zeros_like(x), x)
    inside = covered[0][:, None, :, None] & covered[1][:, None, None]
    return torch.where(inside.to(x.device), torch.full_like(x, 128), x)


@torch.no_grad()
def outcome(
    vae: MultimodalVAE,
    prior: LatentPrior | FlowMap | None,
    judges: Judges,
    data: MultimodalDataset,
    target: Tensor,
    given: Tensor,
    *,
    seed: int,
    odd: Tensor | None = None,
    **options: Any,
) -> Outcome:
    """Generate the target of each item from its sources, and judge what class it shows.

    Args:
        vae, judges: the model, and who looks.
        prior: draws z given the features. None: z is drawn from `vae.generator_of` them.
        data: what the sources are taken from; its labels say what is right.
        target: (N,), the position of the modality that is judged.
        given: (N, M) bool, the sources.
        seed: of the noise, which no other argument changes.
        odd: (N,), another class to look for; None looks for none.
        options: `steps`, `sampler`, `guidance` of `LatentPrior.sample`; `steps` of a flow map.
    """
    features = evaluation.features_of(vae, data)
    some = next(iter(features.values()))
    generator, given = torch.Generator(some.device).manual_seed(seed), given.to(some.device)
    if prior is None:
        z = vae.generator_of(features, given).sample(generator)
    else:
        z = prior.sample(len(data), features, given, generator=generator, **options).z
    seen = torch.stack(list(evaluation.judge_latents(vae, judges, z).labels.values()), 1)
    shown = seen.gather(1, target.cpu()[:, None])[:, 0]
    nowhere = torch.zeros_like(shown, dtype=torch.bool)
    return Outcome(shown == data.labels.cpu(), nowhere if odd is None else shown == odd.cpu())


def removal(
    vae: MultimodalVAE,
    prior: LatentPrior | FlowMap | None,
    judges: Judges,
    data: MultimodalDataset,
    *,
    seed: int,
    **options: Any,
) -> dict[int, Tensor]:
    """{number of sources: (N,) bool, whether the target is right}, from M - 1 sources down to 1.

    Sources leave one by one, in an order that each item draws for itself; the target stays.
    Arguments as in `outcome`.
    """
    parts = deal(len(data), len(vae.names), seed)
    return {
        count: outcome(
            vae, prior, judges, data, parts.target, parts.given(count), seed=seed, **options
        ).right
        for count in range(len(vae.names) - 1, 0, -1)
    }


def damage(
    vae: MultimodalVAE,
    prior: LatentPrior | FlowMap | None,
    judges: Judges,
    data: MultimodalDataset,
    kind: str,
    strengths: Sequence[float],
    good: Sequence[int],
    *,
    seed: int,
    **options: Any,
) -> dict[int, dict[float | None, float]]:
    """Coherence of the target, by number of good sources beside a spoilt one, and its strength.

    {good: {strength: share}}; the strength None leaves the spoilt source out, where any other
    source is left. Arguments as in `spoil` and `outcome`.
    """
    parts = deal(len(data), len(vae.names), seed)
    found: dict[int, dict[float | None, float]] = {count: {} for count in good}
    for strength in (*strengths, None):
        spoilt = int(strength is not None)
        some = spoil(data, parts.spoilt(), kind, strength or 0.0, seed)
        for count in good:
            if count + spoilt:
                told = parts.given(count, spoilt)
                seen = outcome(vae, prior, judges, some, parts.target, told, seed=seed, **options)
                found[count][strength] = seen.right.double().mean().item()
    return found


def quarrel(
    vae: MultimodalVAE,
    prior: LatentPrior | FlowMap | None,
    judges: Judges,
    data: MultimodalDataset,
    good: int,
    odd: int,
    *,
    seed: int,
    **options: Any,
) -> dict[str, float]:
    """Shares of targets that show their item's class, that of the odd ones, or neither, by key.

    Keys: conditional_coherence, odd_one_share, neither.

    All `odd` views of an item are of one other item, so they agree with each other. Arguments as in
    `outcome`.
    """
    parts = deal(len(data), len(vae.names), seed)
    some, label = with_odd_one(data, parts.spoilt(odd), seed)
    told = parts.given(good, odd)
    found = outcome(vae, prior, judges, some, parts.target, told, seed=seed, odd=label, **options)
    right, wrong = (seen.double().mean().item() for seen in found)
    return {"conditional_coherence": right, "odd_one_share": wrong, "neither": 1 - right - wrong}
