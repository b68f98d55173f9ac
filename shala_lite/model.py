"""ShaLa: both stages as one model that generates, translates, saves and loads."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from shala_lite.experts import EXPERTS
from shala_lite.files import file_sha256, read_json, write_atomic, write_json
from shala_lite.flow_map import FlowMap
from shala_lite.fused import FusedVAE
from shala_lite.fusion import FUSIONS
from shala_lite.modalities import Modality
from shala_lite.prior import LatentPrior
from shala_lite.vae import MultimodalVAE

FORMAT = 2
VAES: dict[str, Any] = {"fused": FusedVAE, **EXPERTS}
# Stage 1 by the name under which its results stand.
VARIANTS = (*FUSIONS, *EXPERTS)


def make_vae(variant: str, modalities: Sequence[Modality], **options: Any) -> MultimodalVAE:
    """A new stage 1: `FusedVAE` with the fusion of that name, or the baseline of that name.

    Args:
        variant: one of `VARIANTS`.
        modalities, options: arguments of the model.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: {variant!r}, expected one of {list(VARIANTS)}")
    if variant in FUSIONS:
        return FusedVAE(modalities, fusion=variant, **options)
    return EXPERTS[variant](modalities, **options)


def as_tensor(modality: Modality, seen: Any, device: torch.device | str = "cpu") -> Tensor:
    """Observations of a modality (n, *shape); the strings of a text become token ids.

    Args:
        modality: m.
        seen: a tensor, which stays what it is; of a text also a list of n strings.
        device: of the ids.

    Raises:
        ValueError: neither, or a word that is no token where the vocabulary has no ``"<unk>"``.
    """
    if isinstance(seen, Tensor):
        return seen
    argument, vocabulary = f"x[{modality.name!r}]", modality.vocabulary
    if vocabulary is None:
        raise ValueError(f"{argument}: {type(seen).__name__}, expected a tensor of pixels")
    if not isinstance(seen, (list, tuple)) or not all(isinstance(text, str) for text in seen):
        raise ValueError(
            f"{argument}: {seen!r:.60}, expected a list of strings or a tensor of token ids"
        )
    try:
        return vocabulary.encode(seen, *modality.shape).long().to(device)
    except ValueError as error:  # it calls the strings `texts`
        raise ValueError(f"{argument}{str(error).removeprefix('texts')}") from error


def save_module(module: nn.Module, config: dict, folder: Path, name: str) -> None:
    """Write weights to <name>.safetensors and `config` to <name>.json, each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    write_atomic(folder / f"{name}.safetensors", save(tensors))
    write_json(folder / f"{name}.json", {"format": FORMAT, **config})


def read_config(folder: Path, name: str) -> dict:
    """Read what `save_module` wrote beside the weights.

    Raises:
        FileNotFoundError: no such model in the folder.
        ValueError: written by another version of the format.
    """
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"folder: {folder} holds no {path.name}, expected a saved model")
    config = read_json(path)
    if config.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: not of format {FORMAT}; save the model again")
    return config


def save_vae(vae: MultimodalVAE, folder: Path) -> None:
    """Write stage 1, fused or a baseline, to `folder` as safetensors and JSON."""
    kind = next(name for name, of in VAES.items() if type(vae) is of)
    modalities = [asdict(m) for m in vae.modalities]
    save_module(vae, {"model": kind, "modalities": modalities, **vae.config}, Path(folder), "vae")


def load_vae(folder: Path) -> MultimodalVAE:
    """Read stage 1 back, in evaluation mode."""
    config = read_config(folder, "vae")
    kind, modalities = config.pop("model", None), config.pop("modalities", [])
    if kind not in VAES:
        raise ValueError(f"{folder}: vae.json has model {kind!r}, expected one of {sorted(VAES)}")
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten
        vae = VAES[kind]([Modality.from_config(m) for m in modalities], **config)
    vae.load_state_dict(load_file(Path(folder) / "vae.safetensors"))
    return vae.eval()


def save_prior(prior: LatentPrior, folder: Path) -> None:
    """Write stage 2 to `folder` as safetensors and JSON."""
    save_module(prior, {"names": list(prior.names), **prior.config}, Path(folder), "prior")


def load_prior(folder: Path) -> LatentPrior:
    """Read stage 2 back, in evaluation mode."""
    config = read_config(folder, "prior")
    with torch.random.fork_rng(devices=[]):
        prior = LatentPrior(config.pop("names"), **config)
    prior.load_state_dict(load_file(Path(folder) / "prior.safetensors"))
    return prior.eval()


def save_flow_map(flow_map: FlowMap, folder: Path) -> None:
    """Write a flow map, its teacher with it, to `folder` as safetensors and JSON."""
    teacher = {"names": list(flow_map.names), **flow_map.teacher.config}
    save_module(flow_map, {"teacher": teacher, **flow_map.config}, Path(folder), "flow_map")


def load_flow_map(folder: Path) -> FlowMap:
    """Read a flow map back, in evaluation mode."""
    config = read_config(folder, "flow_map")
    teacher = config.pop("teacher")
    with torch.random.fork_rng(devices=[]):
        flow_map = FlowMap(LatentPrior(teacher.pop("names"), **teacher), **config)
    flow_map.load_state_dict(load_file(Path(folder) / "flow_map.safetensors"))
    return flow_map.eval()


class ShaLa:
    """A trained stage 1 and stage 2 together.

    Args:
        vae: encodes, fuses and decodes.
        prior: samples z, given nothing or the features of any subset.
    """

    def __init__(self, vae: MultimodalVAE, prior: LatentPrior) -> None:
        if vae.names != prior.names:
            raise ValueError(
                f"prior: modalities {prior.names}, expected those of the vae {vae.names}"
            )
        for size in ("latent_dim", "feature_dim"):
            if vae.config[size] != prior.config[size]:
                raise ValueError(
                    f"prior: {size} {prior.config[size]}, expected the vae's {vae.config[size]}"
                )
        self.vae, self.prior = vae.eval(), prior.eval()

    @torch.no_grad()
    def generate(
        self,
        n: int,
        *,
        steps: int = 16,
        sampler: str = "heun",
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        text_generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """n joint samples of all modalities, {name: (n, *shape)}: see `MultimodalVAE.decode`.

        Args:
            n: how many.
            steps, sampler, generator: as in `LatentPrior.sample`.
            guidance: against the prior's guide; 1 is none.
            text_generator: draws the tokens of texts; without one each is the likeliest. It may be
                `generator` itself, which then has drawn z before.
        """
        options: dict[str, Any] = dict(steps=steps, sampler=sampler, generator=generator)
        z = self.prior.sample(n, guidance=guidance, against="guide", **options).z
        return self.vae.decode(z, text_generator)

    @torch.no_grad()
    def translate(
        self,
        x: Mapping[str, Tensor | Sequence[str]],
        *,
        steps: int = 16,
        sampler: str = "heun",
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        text_generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """All modalities, generated from the observations of any subset.

        Args:
            x: {name: (n, *shape)}, pixels in [0, 1] or token ids, at least one modality. A text may
                also be a list of n strings, which its vocabulary encodes: `Vocabulary.encode`.
            steps, sampler, generator: as in `LatentPrior.sample`.
            guidance: against nothing given; 1 is none.
            text_generator: as in `generate`.

        Raises:
            KeyError: an unknown modality.
            ValueError: nothing in `x`; else see `as_tensor` and `observed.check_observations`.
        """
        if not x:
            raise ValueError("x: empty, expected at least one modality; see generate")
        observed: dict[str, Any] = dict(x)
        for modality in self.vae.modalities:
            if (name := modality.name) in x:
                observed[name] = as_tensor(modality, x[name], next(self.vae.parameters()).device)
        given = self.vae.features(observed)
        n = len(next(iter(given.values())))
        samples = self.prior.sample(
            n, given, steps=steps, sampler=sampler, guidance=guidance, generator=generator
        )
        return self.vae.decode(samples.z, text_generator)

    def save(self, folder: Path | str) -> None:
        """Write both stages as safetensors and JSON, and last which files belong together."""
        folder = Path(folder)
        save_vae(self.vae, folder)
        save_prior(self.prior, folder)
        write_json(folder / "model.json", {"format": FORMAT, **_weights(folder)})

    @classmethod
    def load(cls, folder: Path | str) -> "ShaLa":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such model.
            ValueError: it is of another version of the format, or its two stages were not saved
                together: a prior knows the latent space of one stage 1 only.
        """
        folder = Path(folder)
        known = read_config(folder, "model")
        vae, prior = load_vae(folder), load_prior(folder)
        if changed := [name for name, digest in _weights(folder).items() if known[name] != digest]:
            raise ValueError(f"folder: {changed} of {folder} changed after the model was saved")
        return cls(vae, prior)


def _weights(folder: Path) -> dict[str, str]:
    names = ("vae.safetensors", "prior.safetensors")
    return {name: file_sha256(folder / name) for name in names}
