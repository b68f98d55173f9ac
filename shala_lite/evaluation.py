"""Scoring a trained model: generate, let the judges look, reduce to the numbers of `metrics`.

Every function takes latents or sources, decodes in chunks, and keeps of each observation only what
its judge says: a label and, of a picture, a feature. Definitions are those under Metrics on the
notation page; nothing here chooses a setting.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shala_lite import metrics
from shala_lite.datasets import MultimodalDataset
from shala_lite.flow_map import FlowMap
from shala_lite.judges import Judges
from shala_lite.prior import LatentPrior, Samples
from shala_lite.vae import MultimodalVAE

CHUNK = 1000
# Keys of jointly generated sets that stand side by side in a table.
JOINT = (
    "unconditional_coherence",
    "pairwise_coherence",
    "class_entropy",
    "frechet_judge",
    "precision",
    "recall",
)


class Judged(NamedTuple):
    """What the judges say of sets: {name: (N,)} labels, and {name: (N, 64)} features of images.

    Labels are on the CPU. Features stay on the judges' device, where distances take their time.
    `distinct` is that of the dataset, if they are real: see `MultimodalDataset`.
    """

    labels: dict[str, Tensor]
    features: dict[str, Tensor]
    distinct: int | None = None


class Conditional(NamedTuple):
    """What the judges say of sets from each source, the true labels (N,), and a sample's cost."""

    judged: dict[str, Judged]
    truth: Tensor
    nfe: int

    @property
    def predictions(self) -> dict[str, dict[str, Tensor]]:
        """Labels (N,) by source and target."""
        return {source: seen.labels for source, seen in self.judged.items()}

    @property
    def coherence(self) -> metrics.Coherence:
        """Mean over ordered pairs, and the matrix behind it."""
        return metrics.conditional_coherence(self.predictions, self.truth)

    @property
    def right(self) -> Tensor:
        """Share of right targets (N,) of each item, over ordered pairs: for paired comparisons."""
        by_source = self.predictions
        pairs = [(s, t) for s in by_source for t in by_source[s] if s != t]
        right = torch.stack([by_source[s][t] == self.truth for s, t in pairs])
        return right.double().mean(0)

    def scores(self, variant: str) -> dict[str, float]:
        """Coherence and its cost, {variant/key}."""
        return {
            f"{variant}/conditional_coherence": self.coherence.mean,
            f"{variant}/nfe": float(self.nfe),
        }


@torch.no_grad()
def judge_latents(vae: MultimodalVAE, judges: Judges, z: Tensor) -> Judged:
    """Decode latents (N, Z) and judge what comes out."""
    device = next(vae.parameters()).device
    return _judge((vae.decode(chunk.to(device)) for chunk in z.split(CHUNK)), judges)


@torch.no_grad()
def decoded(vae: MultimodalVAE, z: Tensor) -> dict[str, Tensor]:
    """What latents (N, Z) decode to, {name: (N, *shape)} on the CPU, a part at a time."""
    device = next(vae.parameters()).device
    parts = [vae.decode(chunk.to(device)) for chunk in z.split(CHUNK)]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in vae.names}


def judge_dataset(judges: Judges, data: MultimodalDataset) -> Judged:
    """Judge real sets: the reference of every distance. They are complete, else a ValueError."""
    _check_complete(data)
    found = _judge((batch["x"] for batch in data.batches(CHUNK)), judges)
    return found._replace(distinct=data.distinct)


def _check_complete(data: MultimodalDataset) -> None:
    if not data.complete:
        lacking = (~data.present).sum().item()
        raise ValueError(
            f"data: {lacking} of {data.present.numel()} observations missing, "
            "expected complete items: what is missing cannot be a source, nor be judged"
        )


def _judge(sets: Iterable[dict[str, Tensor]], judges: Judges) -> Judged:
    labels: dict[str, list[Tensor]] = {}
    features: dict[str, list[Tensor]] = {}
    for x in sets:
        for name, found in judges.judge(x).items():
            labels.setdefault(name, []).append(found.labels.cpu())
            if judges[name].modality.kind == "image":  # distances are those of pictures
                features.setdefault(name, []).append(found.features)
    return Judged(
        {name: torch.cat(parts) for name, parts in labels.items()},
        {name: torch.cat(parts) for name, parts in features.items()},
    )


def joint_scores(generated: Judged, reference: Judged, classes: int = 10) -> dict[str, float]:
    """Scores of jointly generated sets by key, against as many real ones.

    Keys: unconditional_coherence, pairwise_coherence, class_entropy, frechet_judge, precision,
    recall (each of the last three a mean over modalities), samples. Precision and recall look at
    the leading sets only in which the reference repeats no source image.
    """
    count = min(len(some) for side in (generated, reference) for some in side.features.values())
    fake = {name: value[:count] for name, value in generated.features.items()}
    real = {name: reference.features[name][:count] for name in fake}
    distances = metrics.feature_scores(real, fake, distinct=reference.distinct)
    return {
        **metrics.set_scores(generated.labels, classes),
        **distances,
        "samples": float(count),
    }


def latent_scores(
    vae: MultimodalVAE, judges: Judges, z: Tensor, reference: Judged, classes: int = 10
) -> dict[str, float]:
    """Joint scores of decoded latents z, shape (N, Z), against judged real sets."""
    return joint_scores(judge_latents(vae, judges, z), reference, classes)


def scoreboard(
    vae: MultimodalVAE,
    judges: Judges,
    latents: Mapping[str, Tensor],
    train: MultimodalDataset,
    test: MultimodalDataset,
    classes: int = 10,
) -> dict[str, float]:
    """Joint scores {variant/key} of decoded latents {variant: (N, Z)}, and of real data.

    `judge` is what the judges say of real test sets: the ceiling of coherence. `floor` compares
    real training sets with real test sets; its coherences are those of views that share nothing
    and of the best constant guess.
    """
    reference = judge_dataset(judges, test)
    scores = {
        variant: latent_scores(vae, judges, z, reference, classes) for variant, z in latents.items()
    }
    scores["judge"] = metrics.set_scores(reference.labels, classes)
    real = joint_scores(judge_dataset(judges, train), reference, classes)
    scores["floor"] = {key: value for key, value in real.items() if key not in scores["judge"]}
    labels, truth = reference.labels, test.labels.cpu()
    accuracies = [metrics.accuracy(judged, truth) for judged in labels.values()]
    scores["judge"]["conditional_coherence"] = sum(accuracies) / len(accuracies)
    scores["floor"]["conditional_coherence"] = metrics.chance(truth, classes)
    scores["floor"]["unconditional_coherence"] = metrics.independent_coherence(labels, classes)
    return {f"{name}/{key}": value for name, own in scores.items() for key, value in own.items()}


@torch.no_grad()
def features_of(vae: MultimodalVAE, data: MultimodalDataset) -> dict[str, Tensor]:
    """Deterministic features {name: (N, D)} of a dataset, on the model's device.

    Raises:
        ValueError: observations are missing; see `latents.encode`.
    """
    _check_complete(data)
    device = next(vae.parameters()).device
    parts: dict[str, list[Tensor]] = {}
    for batch in data.batches(CHUNK):
        x = {name: value.to(device) for name, value in batch["x"].items()}
        for name, h in vae.features(x).items():
            parts.setdefault(name, []).append(h)
    return {name: torch.cat(values) for name, values in parts.items()}


def _draw(
    vae: MultimodalVAE,
    prior: LatentPrior | FlowMap | None,
    features: dict[str, Tensor],
    present: Tensor | None,
    seed: int,
    options: dict[str, Any],
) -> Samples:
    """z for every item given the features of what is present, by the prior or by the posterior."""
    some = next(iter(features.values()))
    generator = torch.Generator(some.device).manual_seed(seed)
    if prior is not None:
        return prior.sample(len(some), features, present, generator=generator, **options)
    if options:
        raise ValueError(f"options: {options} of a sampler with prior None, expected none")
    return Samples(vae.generator_of(features, present).sample(generator), 0)


@torch.no_grad()
def conditional(
    vae: MultimodalVAE,
    prior: LatentPrior | FlowMap | None,
    judges: Judges,
    data: MultimodalDataset,
    *,
    seed: int,
    **options: Any,
) -> Conditional:
    """Generate all modalities from each one alone, for every item of `data`.

    Noise depends on `seed` and not on the source or the guidance, so that settings are compared
    paired.

    Args:
        vae, judges, data: the model, who looks, and at what.
        prior: draws z given the source's feature. None: z is drawn from `vae.generator_of` the
            source alone, as the baselines' papers do.
        seed: of the noise.
        options: `steps`, `sampler`, `guidance` of `LatentPrior.sample`; `steps` of a flow map.
    """
    features = features_of(vae, data)
    judged, nfe = {}, 0
    for source in vae.names:
        z, nfe = _draw(vae, prior, {source: features[source]}, None, seed, options)
        judged[source] = judge_latents(vae, judges, z)
    return Conditional(judged, data.labels.cpu(), nfe)


@torch.no_grad()
def coherence_by_sources(
    vae: MultimodalVAE,
    prior: LatentPrior | FlowMap | None,
    judges: Judges,
    data: MultimodalDataset,
    *,
    seed: int,
    **options: Any,
) -> dict[int, float]:
    """Coherence of the modalities that were not given, by the number of sources, 1 to M - 1.

    One random subset of that size for each item; arguments as in `conditional`.
    """
    features = features_of(vae, data)
    device = next(iter(features.values())).device
    result = {}
    for size in range(1, len(vae.names)):
        subsets = torch.Generator().manual_seed(seed)
        given = metrics.random_subsets(len(data), len(vae.names), size, subsets)
        z = _draw(vae, prior, features, given.to(device), seed, options).z
        labels = judge_latents(vae, judges, z).labels
        result[size] = metrics.coherence_of_absent(labels, data.labels.cpu(), given)
    return result


def best_guidance(sweep: Mapping[float, float]) -> float:
    """The guidance with the highest score; of equals, the one closest to none."""
    if not sweep:
        raise ValueError("sweep is empty; expected {guidance: coherence}")
    return max(sorted(sweep, key=lambda g: abs(g - 1)), key=lambda g: sweep[g])


def least_guidance(sweep: Mapping[float, float], tolerance: float = 0.02) -> float:
    """The guidance closest to none whose distance is nearly the least: at most `tolerance` above.

    A curve of distances is flat around its minimum, and there noise decides. More guidance than is
    needed costs coherence and variety, so of equals it takes the one that guides least, like the
    one-standard-error rule of model selection (Breiman et al., 1984).

    Args:
        sweep: {guidance: distance}, lower is better.
        tolerance: as a share of the least distance, at least 0.
    """
    if not sweep:
        raise ValueError("sweep is empty; expected {guidance: distance}")
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}; expected at least 0")
    enough = (1 + tolerance) * min(sweep.values())
    return min((g for g in sweep if sweep[g] <= enough), key=lambda g: abs(g - 1))
