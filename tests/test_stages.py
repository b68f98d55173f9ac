"""Names, seeds and budgets of the stages of an experiment."""

import json

import pytest
import torch

from shala_lite.experts import EXPERTS
from shala_lite.modalities import Modality
from shala_lite.model import VARIANTS, make_vae
from shala_lite.stages import Stages, baseline, label_of, module_of, seeded, steps_of


def test_weights_are_drawn_from_the_seed_and_the_global_state_is_left_alone():
    before = torch.random.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with seeded(seed):
            draws.append(torch.rand(5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("variant", "changes", "expected"),
    [
        ("concat", {}, "stage 1"),
        ("moe", {}, "stage 1 moe"),
        ("concat", {"beta": 2.0, "alignment": 0}, "stage 1 (alignment 0, beta 2.0)"),
    ],
)
def test_a_label_names_the_variant_and_what_was_changed(variant, changes, expected):
    assert label_of("stage 1", variant, changes) == expected


def test_every_variant_names_a_module_of_the_package():
    from importlib import import_module

    for variant in VARIANTS:
        assert import_module(f"shala_lite.{module_of(variant)}")


def test_steps_are_those_of_the_budget_unless_it_has_seconds(tmp_path):
    (tmp_path / "steps.json").write_text(json.dumps(17))
    model = torch.nn.Linear(1, 1)
    assert steps_of(model, None, {"seconds": 0, "steps": 5}, tmp_path) == 5
    assert steps_of(model, None, {"seconds": 3.0, "steps": 5}, tmp_path) == 17


def test_decoders_of_every_baseline_read_as_much_of_z():
    modalities = [Modality(name, (1, 8, 8)) for name in "abc"]
    sizes = dict(feature_dim=8, widths=(4, 8))
    ours = make_vae("concat", modalities, latent_dim=12, **sizes)
    for name in EXPERTS:
        changes = baseline(name, 12, len(modalities), beta=3.0)
        vae = make_vae(name, modalities, **sizes | {"latent_dim": 12} | changes)
        assert vae.beta == 3.0
        for theirs, own in zip(vae.decoders.parameters(), ours.decoders.parameters(), strict=True):
            assert theirs.shape == own.shape


def test_another_device_begins_anew(tmp_path, monkeypatch):
    own = Stages(None, 0)
    here = own.checkpoints(tmp_path, "guide")
    assert here.is_dir()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = own.checkpoints(tmp_path, "guide")
    assert (here.name, there.name) == ("checkpoint-guide-cpu", "checkpoint-guide-cuda")
