"""The whole of it at smoke size: data, judges, both stages, scores, and a manifest of them."""

import json
import math

import pytest
import torch
import yaml
from tiny_models import rng

from shala_lite import evaluation, metrics, runs
from shala_lite.experiments import Experiment
from shala_lite.files import file_sha256
from shala_lite.model import ShaLa


@pytest.fixture(scope="module")
def done(tmp_path_factory, repository):
    """A finished run of the smoke profile, with the experiment behind it and its scores."""
    profile = repository / "book" / "profiles" / "smoke" / "05_diffusion_prior.yaml"
    parameters = yaml.safe_load(profile.read_text()) | {"judge_steps": 5, "stage1_steps": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHALA_RUNS", str(tmp_path_factory.mktemp("runs")))
        run = runs.start("zz_pipeline", parameters, keys=metrics.KEYS)
        experiment = Experiment(run)
        judges, model = experiment.judges(), experiment.model()
        train, test = experiment.data("train"), experiment.data("test")
        count, steps = parameters["test_size"], parameters["sample_steps"]
        generator = torch.Generator(experiment.device).manual_seed(0)
        latents = {
            "prior": model.prior.sample(count, steps=steps, generator=generator).z,
            "standard_normal": torch.randn(count, model.vae.latent_dim, generator=rng(0)),
        }
        board = evaluation.scoreboard(model.vae, judges, latents, train, test)
        settings = dict(steps=steps, sampler="heun", seed=0)
        sweep = {}
        for guidance in parameters["guidances"]:
            data = experiment.data("val")
            found = evaluation.conditional(
                model.vae, model.prior, judges, data, guidance=guidance, **settings
            )
            sweep[guidance] = found.coherence.mean
        settings["guidance"] = evaluation.best_guidance(sweep)
        stages = (model.vae, model.prior, judges)
        found = evaluation.conditional(*stages, test, **settings)
        sources = evaluation.coherence_by_sources(*stages, test, **settings)
        with run.stage("scores"):
            run.record_all(board | found.scores("prior"))
            for size, value in sources.items():
                run.record("prior", "conditional_coherence", value, slice=f"{size}_sources")
        yield run.finish(), experiment, board


def read(done, name):
    return json.loads((done[0] / name).read_text())


def test_every_number_is_finite_registered_and_in_its_range(done):
    numbers = read(done, "metrics.json")
    assert all(math.isfinite(value) for value in numbers.values())
    for name, value in numbers.items():
        key = runs.split_metric(name)[1]
        assert metrics.KEYS[key].unit
        if metrics.KEYS[key].unit == "share":
            assert 0 <= value <= 1
    assert {"prior", "standard_normal", "judge", "floor"} == {n.split("/")[0] for n in numbers}
    for size in (1, 2, 3, 4):
        assert f"prior/conditional_coherence@{size}_sources" in numbers
    assert numbers["prior/nfe"] in (3, 6)
    assert numbers["prior/samples"] == 100
    assert 0 <= numbers["prior/class_entropy"] <= math.log(10) + 1e-6


def test_the_manifest_says_how_they_came_about(done):
    folder, experiment, _ = done
    manifest = read(done, "manifest.json")
    assert manifest["metrics_sha256"] == file_sha256(folder / "metrics.json")
    assert manifest["parameters"] == experiment.parameters
    assert {(d["name"], d["split"], d["size"]) for d in manifest["datasets"]} == {
        ("polymnist", "train", 400),
        ("polymnist", "val", 100),
        ("polymnist", "test", 100),
    }
    kinds = {artifact["name"].split("-")[0]: artifact for artifact in manifest["artifacts"]}
    assert set(kinds) == {"judges", "aligned", "stage1", "stage2"}
    assert set(manifest["stages"]) >= {"judges", "stage1", "stage2", "scores"}
    for module in ("vae", "prior", "training", "evaluation", "metrics"):
        assert f"shala_lite.{module}" in manifest["code"]


def test_no_split_shares_its_content_with_another(done):
    fingerprints = {d["fingerprint"] for d in read(done, "manifest.json")["datasets"]}
    assert len(fingerprints) == 3


def test_stage_1_went_down(done):
    """What stage 2 learns in as few steps is less than its noise."""
    losses = done[1].histories["stage 1"].terms["loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.98 * losses[0]


def test_the_model_generates_translates_and_survives_a_journey(done, tmp_path):
    experiment = done[1]
    model = experiment.model()
    model.save(tmp_path)
    loaded = ShaLa.load(tmp_path)
    batch = next(experiment.data("test").batches(6))
    for x in (
        loaded.generate(6, steps=2, generator=rng()),
        loaded.translate({"m1": batch["x"]["m1"].cpu()}, steps=2, guidance=2.0, generator=rng()),
    ):
        assert list(x) == ["m0", "m1", "m2", "m3", "m4"]
        for image in x.values():
            assert image.shape == (6, 3, 28, 28)
            assert image.isfinite().all()
            assert image.min() >= 0
            assert image.max() <= 1


def test_same_seed_same_numbers(done):
    _, experiment, board = done
    model, judges = experiment.model(), experiment.judges()
    generator = torch.Generator(experiment.device).manual_seed(0)
    z = model.prior.sample(100, steps=2, generator=generator).z
    reference = evaluation.judge_dataset(judges, experiment.data("test"))
    again = evaluation.joint_scores(evaluation.judge_latents(model.vae, judges, z), reference)
    assert {f"prior/{key}": value for key, value in again.items()}.items() <= board.items()
