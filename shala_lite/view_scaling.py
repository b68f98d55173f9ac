"""How the quality of views from nothing moves as their number grows, at equal seconds of training.

Every number of views has data, models and cameras of its own; the judges are those of all views,
since each reads one view at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from shala_lite import stages
from shala_lite.evaluation import decoded
from shala_lite.experiments import Experiment
from shala_lite.fusion import FUSIONS
from shala_lite.scaling import spread
from shala_lite.vae import MultimodalVAE
from shala_lite.view_evaluation import ViewEvaluation

PRIOR_SHARE = 0.25  # of a fused model's seconds; a baseline's are all for its stage 1


def quality_by_count(
    experiment: Experiment,
    critics: ViewEvaluation,
    counts: Sequence[int],
    variants: Sequence[str],
    seconds: float,
) -> dict[str, float]:
    """Scores {variant/key@M_views} of as many sets as there are test objects, each of M views.

    Args:
        experiment: of all views; its sizes, seed and `sample_steps` are used.
        critics: judges and cameras of all views, in their order.
        counts: every M, at most the number of views; they are evenly spread.
        variants: names in `model.VARIANTS`. One that fuses has the diffusion prior, any other
            N(0, I), as its paper has.
        seconds: of training for each model, the prior's share included.

    Returns:
        What `ViewEvaluation.scores` gives of each, and of `judge` and `floor`.
    """
    names = [modality.name for modality in experiment.data("test").modalities]
    found: dict[str, float] = {}
    for count in counts:
        own = Experiment(experiment.run, only=spread(names, count))
        cameras = critics.cameras[[names.index(name) for name in spread(names, count)]]
        real = (own.data("train"), own.data("test"))
        judged = ViewEvaluation(critics.judge, critics.matcher, *real, cameras)
        sets = {name: decoded(*_drawn(own, name, count, seconds)) for name in variants}
        scores = judged.scores(sets, torch.Generator().manual_seed(own.seed))
        found |= {f"{k}@{count}_views": value for k, value in scores.items() if "@" not in k}
    return found


def _drawn(own: Experiment, name: str, count: int, seconds: float) -> tuple[MultimodalVAE, Tensor]:
    """A model and what it decodes, a latent for each test object."""
    p, sets = own.parameters, len(own.data("test"))
    noise = torch.Generator(own.device).manual_seed(own.seed + 1)
    if name in FUSIONS:
        share = PRIOR_SHARE * seconds
        first = dict(seconds=seconds - share, align_steps=0)
        prior = own.stage2(name, **first, stage2_seconds=share)
        z = prior.sample(sets, steps=p["sample_steps"], generator=noise).z
        return own.stage1(name, **first), z
    changes = dict(alignment=0.0, align_steps=0, seconds=seconds)
    vae = own.stage1(name, **stages.baseline(name, p["stage1_latent_dim"], count, **changes))
    return vae, torch.randn(sets, vae.latent_dim, generator=noise, device=own.device)
