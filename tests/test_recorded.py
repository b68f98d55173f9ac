"""A step that a GPU replays: no loss looks at a number on its way, and replaying changes nothing.

The second half needs a GPU that is named: CUDA_VISIBLE_DEVICES=0 pytest tests/test_recorded.py
"""

import copy

import pytest
import torch
from tiny_models import NAMES, rng, tiny_dataset, tiny_latents, tiny_prior, tiny_vae
from torch.utils._python_dispatch import TorchDispatchMode

from shala_lite.alignment import AlignFirst
from shala_lite.attribute_judges import AttributeData
from shala_lite.flow_map import FlowMap
from shala_lite.judges import JudgeData, Judges
from shala_lite.recorded import WARM
from shala_lite.training import fit
from shala_lite.view_agreement import SingleViews, ViewJudge
from shala_lite.view_matcher import ViewGroups, ViewMatcher

# What hands a number, or a shape that hangs on one, back to Python.
LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is named")


class Looks(TorchDispatchMode):
    """Notes every operation that looks at a number."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        indexed = name in ("index", "index_put_") and any(
            at is not None and at.dtype == torch.bool for at in args[1]
        )
        if name in LOOKS or indexed:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def views():
    data = tiny_dataset(names=NAMES, shape=(4, 16, 16))
    data.attributes["kind"] = data.labels % 3
    return data


def cases():
    """Name, model and data of everything that chapters train."""
    data, latents = tiny_dataset(), tiny_latents()
    for variant in ("concat", "sum", "attention", "poe", "moe", "mopoe", "mmvaeplus"):
        yield variant, tiny_vae(variant=variant, alignment=1.0, feature_dim=8), data
    yield "masked", tiny_vae(masked=0.5), data
    yield "cycle", tiny_vae(alignment=1.0, cycle=1.0), data
    shared = dict(
        shared_nets=True, decoder="layered", decoder_layers=3, decoder_stride=99, decoder_hidden=6
    )
    yield "shared", tiny_vae(**shared), data
    yield "layered", tiny_vae(decoder="layered", decoder_hidden=6), data
    vae = tiny_vae(alignment=1.0)
    yield "alignment", AlignFirst(vae.encoders, vae.alignment), data
    yield "transformer", tiny_prior(), latents
    yield "mlp", tiny_prior(denoiser="mlp", tokens=1, heads=1), latents
    yield "flow map", FlowMap(tiny_prior(), guidance=2.0), latents
    large = tiny_dataset(shape=(3, 28, 28))
    yield "judge", Judges.for_modalities(large.modalities, width=4)["a"], JudgeData(large, "a")
    seen = views()
    judge = ViewJudge(seen.modalities[0], {"kind": 3}, width=4)
    yield "view judge", judge, SingleViews(seen, ["kind"])
    yield "matcher", ViewMatcher(seen.modalities[0], widths=(4, 8)), ViewGroups(seen)


CASES = {name: (model, data) for name, model, data in cases()}


@pytest.mark.parametrize("name", CASES)
def test_a_step_looks_at_no_number(name, monkeypatch):
    # on a GPU nothing looks for NaN before the loss tells of it
    monkeypatch.setattr("shala_lite.observed._check_numbers", lambda *_: None)
    model, data = CASES[name]
    model = copy.deepcopy(model).train()
    data.batch(torch.arange(8))  # data look once whether anything is missing
    with Looks() as looks:
        loss = model.loss(**data.batch(torch.arange(8)), generator=rng())["loss"]
        loss.backward()
    assert looks.seen == []


def test_what_looks_is_noticed():
    """What is missing is left out of the batch, and how much that is hangs on the data."""
    data = tiny_dataset().with_missing(0.3)
    with Looks() as looks:
        tiny_vae().train().loss(**data.batch(torch.arange(8)), generator=rng())
    assert "nonzero" in looks.seen


def trained(model, data, steps, monkeypatch=None):
    """A copy after so many steps on the GPU, in single precision, recorded unless patched."""
    if monkeypatch is not None:
        monkeypatch.setattr("shala_lite.recorded.WARM", steps)
    model = copy.deepcopy(model).to("cuda")
    options = dict(batch_size=8, precision="32-true", learning_rate=1e-3, ema=0.9)
    history = fit(model, data, steps=steps, progress=False, **options)
    return model, history


def moved(data):
    """Data on the GPU."""
    if hasattr(data, "to"):
        return data.to("cuda")
    found = copy.copy(data)
    for key, value in vars(data).items():
        if isinstance(value, torch.Tensor):
            setattr(found, key, value.to("cuda"))
    return found


@gpu
@pytest.mark.parametrize("name", ["concat", "mopoe", "shared", "mlp", "flow map", "missing"])
def test_replayed_steps_are_the_steps_themselves(name, monkeypatch):
    if name == "missing":  # cannot be recorded, and must not suffer from the attempt
        model, data = tiny_vae(), tiny_dataset().with_missing(0.3)
    else:
        model, data = CASES[name]
    if name in ("mlp", "flow map"):
        posterior = type(data.posterior)(data.posterior.mean.cuda(), data.posterior.std.cuda())
        features = {n: h.cuda() for n, h in data.features.items()}
        data = type(data)(posterior, features, data.present.cuda())
    else:
        data = moved(data)
    steps = WARM + 9
    replayed, history = trained(model, data, steps)
    plain, expected = trained(model, data, steps, monkeypatch)
    for term, values in expected.terms.items():
        assert history.terms[term] == pytest.approx(values, rel=2e-3, abs=1e-4)
    for found, wanted in zip(replayed.state_dict().values(), plain.state_dict().values()):
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=2e-3)


@gpu
def test_data_on_the_gpu_of_other_kinds_can_be_recorded():
    seen = views().to("cuda")
    judge = ViewJudge(seen.modalities[0], {"kind": 3}, width=4)
    for model, data in (
        (judge, SingleViews(seen, ["kind"])),
        (ViewMatcher(seen.modalities[0], widths=(4, 8)), ViewGroups(seen)),
        (judge, AttributeData(with_azimuths(seen), "a", ["kind"])),
    ):
        _, history = trained(model, data, WARM + 3)
        assert history.items == 8 * (WARM + 3)


def with_azimuths(data):
    """Views of six channels, as the judge of views reads them."""
    six = tiny_dataset(names=NAMES, shape=(6, 16, 16)).to("cuda")
    six.attributes["kind"] = data.attributes["kind"]
    return six
