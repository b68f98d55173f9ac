"""What the chapters share: the stages of an experiment, each trained once and found again.

An `Experiment` reads its sizes from the parameters of a run. Data, judges, stage 1 and stage 2
are artifacts, named by the hash of what made them, so that a chapter runs alone, or fast after
one that has trained the same stage before it.
"""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from shala_lite.alignment import AlignFirst
from shala_lite.datasets import MultimodalDataset, load_dataset
from shala_lite.flow_map import FlowMap
from shala_lite.fused import FusedVAE
from shala_lite.judges import JudgeData, Judges
from shala_lite.latents import LatentDataset, encode
from shala_lite.model import (
    ShaLa,
    load_flow_map,
    load_prior,
    load_vae,
    make_vae,
    save_flow_map,
    save_module,
    save_prior,
    save_vae,
)
from shala_lite.prior import LatentPrior
from shala_lite.runs import Run
from shala_lite.stages import (
    FEWSTEP_DEFAULTS,
    JUDGE_DEFAULTS,
    STAGE1_DEFAULTS,
    STAGE2_DEFAULTS,
    Stages,
    label_of,
    made_from,
    module_of,
    seeded,
    steps_of,
)
from shala_lite.training import History
from shala_lite.vae import MultimodalVAE

ENCODE_BATCH = 1000
VAL_MOST = 5_000  # one in twelve of MNIST's training part is set aside, and of PolyMNIST's


class Experiment(Stages):
    """The stages behind a chapter, made on first use.

    Args:
        run: its parameters name the dataset (`dataset`, `source`, `root`, `train_size`,
            `test_size`), the seed, and the sizes and budgets of each stage (prefixes `judge_`,
            `stage1_`, `stage2_`, `fewstep_`). What is used is noted in its manifest.
        only: names of the modalities that are read, in that order; None is all.
        changes: override parameters of the run, such as `dataset`, in this experiment alone.
    """

    def __init__(self, run: Run, *, only: Sequence[str] | None = None, **changes: Any) -> None:
        self.only, self.parameters = only, {**run.parameters, **changes}
        super().__init__(run, self.parameters["seed"])
        # one load and one training for each stage, however often a cell asks
        self.data = cache(self._data)
        self.judges = cache(self._judges)
        self.stage1 = cache(self._stage1)
        self.stage1_folder = cache(self._stage1_folder)
        self.latents = cache(self._latents)
        self.stage2 = cache(self._stage2)
        self.stage2_folder = cache(self._stage2_folder)
        self.flow_map = cache(self._flow_map)

    def prefixed(self, prefix: str, **defaults: Any) -> dict[str, Any]:
        """Parameters that start with `prefix`, without it."""
        given, cut = self.parameters.items(), len(prefix)
        return defaults | {k[cut:]: v for k, v in given if k.startswith(prefix)}

    def _data(self, split: str) -> MultimodalDataset:
        p = self.parameters
        size = p["train_size"] if split == "train" else p["test_size"]
        size = min(size, VAL_MOST) if split == "val" else size
        # the data are the same for every seed of the models
        data = load_dataset(p["dataset"], split, source=p["source"], root=p["root"], size=size)
        self.run.dataset(data)
        return (data if self.only is None else data.only(self.only)).to(self.device)

    def _judges(self) -> Judges:
        """One classifier a modality, trained on real training data; seed 0 whatever the run's."""
        settings, train = self.prefixed("judge_", **JUDGE_DEFAULTS), self.data("train")

        def make(folder: Path) -> dict[str, History]:
            with seeded(0):
                judges = Judges.for_modalities(train.modalities, width=settings["width"])
            histories = {}
            for name in judges.names:
                own, title = self.checkpoints(folder, name), f"judge {name}"
                budget, seen = settings | {"seed": 0}, JudgeData(train, name)
                histories[title] = self.fit_stage(
                    judges[name], seen, budget, settings["steps"], own, title
                )
            judges.fit_feature_statistics(train)
            judges.save(folder)
            return histories

        config = {"train": train.fingerprint, **settings}
        folder = self.stage("judges", config, ["judges", "training"], make)
        return Judges.load(folder).to(self.device)

    def _stage1(self, variant: str = "concat", **changes: Any) -> MultimodalVAE:
        """The trained stage 1 of that name (`model.VARIANTS`); `changes` override its parameters.

        With `seconds` above 0 it trains for as many steps as fit into that time, whatever `steps`;
        with `missing` above 0, without that share of all observations. None drops a parameter.
        """
        return load_vae(self.stage1_folder(variant, **changes)).to(self.device)

    def _stage1_folder(self, variant: str = "concat", **changes: Any) -> Path:
        settings, train = self._stage1_settings(changes), self.data("train")
        if settings["align_steps"] and not settings.get("alignment"):
            raise ValueError(
                f"stage1_align_steps: {settings['align_steps']} with no stage1_alignment, "
                "expected a positive weight beside it"
            )
        budget = {key: settings.pop(key) for key in ("batch", "rate", *STAGE1_DEFAULTS)}
        if budget["missing"]:
            train = train.with_missing(budget["missing"], self.seed)

        align = {key: budget.pop(f"align_{key}") for key in ("batch", "rate", "steps")}
        aligned = self._aligned(settings, align, train) if align["steps"] else None

        def make(folder: Path) -> dict[str, History]:
            with seeded(self.seed):
                vae = make_vae(variant, train.modalities, **settings)
            if aligned:
                first = AlignFirst(vae.encoders, vae.alignment)
                first.load_state_dict(load_file(aligned / "aligned.safetensors"))
            own = self.checkpoints(folder)
            steps = steps_of(vae, train, budget, own)
            history = self.fit_stage(vae, train, budget, steps, own, label("stage 1"))
            save_vae(vae, folder)
            return {"stage 1": history}

        label = partial(label_of, variant=variant, changes=changes)
        config = {"train": self.data("train").fingerprint, "variant": variant, **settings, **budget}
        config["seed"] = self.seed
        config["aligned"] = made_from(aligned, "aligned.safetensors") if aligned else None
        return self.stage("stage1", config, [module_of(variant), "training"], make, label)

    def _aligned(
        self, settings: dict[str, Any], budget: dict[str, Any], train: MultimodalDataset
    ) -> Path:
        """Encoders trained on alignment alone, once for all models that have such encoders."""
        own = ("feature_dim", "widths", "residual", "text_width", "shared_nets")
        sizes = {key: settings[key] for key in own if key in settings}

        def make(folder: Path) -> dict[str, History]:
            with seeded(self.seed):
                vae = FusedVAE(train.modalities, alignment=1.0, **sizes)
            model = AlignFirst(vae.encoders, vae.alignment)
            own = self.checkpoints(folder)
            history = self.fit_stage(model, train, budget, budget["steps"], own, "alignment")
            save_module(model, sizes, folder, "aligned")
            return {"alignment": history}

        config = {"train": train.fingerprint, **sizes, **budget, "seed": self.seed}
        return self.stage("aligned", config, ["fused", "training"], make)

    def _stage1_settings(self, changes: dict[str, Any]) -> dict[str, Any]:
        settings = {**self.prefixed("stage1_", **STAGE1_DEFAULTS), **changes}
        return {key: value for key, value in settings.items() if value is not None}

    def _latents(self, split: str, variant: str = "concat", **changes: Any) -> LatentDataset:
        """Posteriors and features of a split under that stage 1."""
        vae = self.stage1(variant, **changes)
        return encode(vae, self.data(split).batches(ENCODE_BATCH))

    def _stage2(self, variant: str = "concat", **changes: Any) -> LatentPrior:
        """The trained stage 2 on that stage 1; `changes` override parameters of stage 1.

        Those with the prefix `stage2_` override this stage's. `missing` concerns stage 1 alone:
        the prior trains on complete items.
        """
        return load_prior(self.stage2_folder(variant, **changes)).to(self.device)

    def _stage2_folder(self, variant: str = "concat", **changes: Any) -> Path:
        first, settings = self._stage2_settings(changes)
        vae = self.stage1(variant, **first)
        keys = ("batch", "rate", "steps", "seconds", "ema", "guide_share")
        budget = {key: settings.pop(key) for key in keys}

        def make(folder: Path) -> dict[str, History]:
            latents = self.latents("train", variant, **first)
            sizes: Any = dict(latent_dim=vae.latent_dim, feature_dim=vae.feature_dim)
            with seeded(self.seed):
                prior = LatentPrior(vae.names, **sizes, **settings).to(self.device)
            prior.standardise(latents)
            own = self.checkpoints(folder)
            count = steps_of(prior, latents, budget, own)
            histories = {}
            if (guide := prior.guide) is not None:
                few, where = max(1, round(budget["guide_share"] * count)), "guide"
                aside = self.checkpoints(folder, where)
                histories[where] = self.fit_stage(guide, latents, budget, few, aside, label(where))
            histories["stage 2"] = self.fit_stage(
                prior, latents, budget, count, own, label("stage 2")
            )
            save_prior(prior, folder)
            return histories

        label = partial(label_of, variant=variant, changes=changes)
        below = made_from(self.stage1_folder(variant, **first), "vae.safetensors")
        config = {"stage 1": below, **settings, **budget, "seed": self.seed}
        sources = ["prior", module_of(variant), "training"]
        return self.stage("stage2", config, sources, make, label)

    def _stage2_settings(self, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The changes that concern stage 1, and all settings of stage 2."""
        own = {k[7:]: v for k, v in changes.items() if k.startswith("stage2_")}
        first = {k: v for k, v in changes.items() if not k.startswith("stage2_")}
        return first, self.prefixed("stage2_", **STAGE2_DEFAULTS) | own

    def _flow_map(
        self, variant: str = "concat", *, guidance: float | None = None, **changes: Any
    ) -> FlowMap:
        """The few-step sampler distilled from that stage 2; `changes` as in `stage2`.

        `guidance` overrides the run's. Batch and rate are stage 2's, the rate halved, unless given.
        """
        first, prior = self._stage2_settings(changes)
        told = changes if guidance is None else changes | {"guidance": guidance}
        label = partial(label_of, variant=variant, changes=told)
        like = {"batch": prior["batch"], "rate": prior["rate"] / 2}
        settings = self.prefixed("fewstep_", **FEWSTEP_DEFAULTS, **like)
        settings |= {} if guidance is None else {"guidance": float(guidance)}
        budget = {key: settings.pop(key) for key in ("batch", "rate", "steps", *FEWSTEP_DEFAULTS)}

        def make(folder: Path) -> dict[str, History]:
            latents = self.latents("train", variant, **first)
            with seeded(self.seed):
                flow_map = FlowMap(self.stage2(variant, **changes), **settings)
            own = self.checkpoints(folder)
            steps = steps_of(flow_map, latents, budget, own)
            history = self.fit_stage(flow_map, latents, budget, steps, own, label("few steps"))
            save_flow_map(flow_map, folder)
            return {"few steps": history}

        teacher = made_from(self.stage2_folder(variant, **changes), "prior.safetensors")
        config = {"stage 2": teacher, **settings, **budget, "seed": self.seed}
        sources = ["flow_map", module_of(variant), "training"]
        folder = self.stage("flow_map", config, sources, make, label)
        return load_flow_map(folder).to(self.device)

    def model(self) -> ShaLa:
        """Both stages together."""
        return ShaLa(self.stage1(), self.stage2())
