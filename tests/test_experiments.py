"""The stages behind a chapter: trained once, found again, and unlike where they should be."""

import pytest
import torch

from shala_lite import experiments, metrics, runs
from shala_lite.distributions import DiagonalGaussian
from shala_lite.experiments import Experiment
from shala_lite.files import read_json
from shala_lite.stages import seeded

PARAMETERS = {
    "profile": "smoke",
    "dataset": "polymnist",
    "source": "embedded",
    "root": None,
    "seed": 0,
    "train_size": 60,
    "test_size": 20,
    "judge_width": 4,
    "judge_steps": 2,
    "judge_batch": 16,
    "stage1_latent_dim": 4,
    "stage1_feature_dim": 8,
    "stage1_hidden": 8,
    "stage1_widths": [3, 4],
    "stage1_steps": 3,
    "stage1_batch": 16,
    "stage1_rate": 0.002,
    "stage2_denoiser": "mlp",
    "stage2_width": 8,
    "stage2_depth": 1,
    "stage2_steps": 3,
    "stage2_batch": 16,
    "stage2_rate": 0.001,
    "fewstep_steps": 3,
    "fewstep_batch": 16,
    "fewstep_rate": 0.001,
    "fewstep_guidance": 1.0,
}


def experiment(**changes):
    """A new experiment, as another process would make it."""
    return Experiment(runs.start("zz_test", PARAMETERS | changes, keys=metrics.KEYS))


def stages(found):
    """All stages, made or found, and the artifacts they come from {kind: name}."""
    found.judges()
    found.model()
    names = [artifact["name"] for artifact in found.run.manifest()["artifacts"]]
    return {name.split("-")[0]: name for name in names}


def files():
    """When every file in the store was last written."""
    store = runs.root() / "artifacts"
    return {path: path.stat().st_mtime_ns for path in store.rglob("*.*") if path.suffix != ".lock"}


def weights(found):
    model = found.model()
    return {**model.vae.state_dict(), **model.prior.state_dict()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store of artifacts, with the stages of `PARAMETERS` in it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHALA_RUNS", str(folder))
        first = experiment()
        return folder, first, stages(first)


@pytest.fixture
def first(store, monkeypatch):
    monkeypatch.setenv("SHALA_RUNS", str(store[0]))
    return store[1]


def test_stages_are_found_again_and_nothing_is_trained(first, store):
    before = files()
    again = experiment()
    assert stages(again) == store[2]
    assert files() == before
    found, expected = weights(again), weights(first)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert again.histories == first.histories


def test_an_experiment_on_other_data_beside_the_run_s(first, store):
    run = runs.start("zz_test", PARAMETERS, keys=metrics.KEYS)
    framed = Experiment(run, dataset="polymnist_frames")
    assert framed.data("train").name == "polymnist_frames"
    assert framed.data("train").fingerprint != first.data("train").fingerprint
    before = files()
    framed.stage1()
    assert {path.parent.name.split("-")[0] for path in files().keys() - before.keys()} == {"stage1"}
    assert run.parameters == PARAMETERS
    assert run.manifest()["dataset"] == "polymnist"
    assert {known["name"] for known in run.manifest()["datasets"]} == {"polymnist_frames"}


def test_asked_twice_an_experiment_answers_the_same(first):
    assert first.stage1() is first.stage1()
    assert first.data("train") is first.data("train")
    assert first.latents("test") is first.latents("test")


@pytest.mark.parametrize("variant", ["sum", "poe", "mmvaeplus"])
def test_every_variant_is_a_stage_of_its_own_with_its_prior(first, store, variant):
    options = {"private_dim": 1, "latent_dim": 6} if variant == "mmvaeplus" else {}
    before, found = files(), experiment()
    vae, prior = found.stage1(variant, **options), found.stage2(variant, **options)
    assert files().keys() > before.keys()
    assert all(files()[path] == when for path, when in before.items())
    assert vae.latent_dim == prior.latent_dim == (6 if options else 4)
    assert found.stage1(variant, **options) is vae
    words = " (latent_dim 6, private_dim 1)" if options else ""
    assert {f"stage 1 {variant}{words}", f"stage 2 {variant}{words}"} <= found.histories.keys()
    for name, value in experiment().stage1(variant, **options).state_dict().items():
        assert torch.equal(value, vae.state_dict()[name])
    assert found.stage1(variant, **options | {"latent_dim": 8}).latent_dim == 8


def test_a_prior_of_another_kind_shares_stage_1_and_its_flow_map_knows_it(first, store):
    found, change = experiment(), {"stage2_parametrisation": "noise"}
    vae, before = found.stage1(), files()
    prior = found.stage2("concat", **change)
    assert found.stage1() is vae
    assert (prior.parametrisation, first.stage2().parametrisation) == ("noise", "velocity")
    made = {path.parent.name.split("-")[0] for path in files().keys() - before.keys()}
    assert made == {"stage2"}
    assert "stage 2 (stage2_parametrisation noise)" in found.histories
    noise = found.flow_map("concat", **change).state_dict()
    assert any(
        not torch.equal(value, noise[k]) for k, value in found.flow_map().state_dict().items()
    )


def test_the_manifest_says_how_fast_each_training_was(first):
    trainings = {known["training"]: known for known in first.run.manifest()["trainings"]}
    assert {"stage 1", "stage 2", "judge m0"} <= trainings.keys()
    for name, known in trainings.items():
        steps = 2 if "judge" in name else 1 if "guide" in name else 3
        assert known["artifact"].startswith(name.split()[0].replace("guide", "stage2"))
        assert known["items"] == steps * 16
        assert known["items_per_second"] > 0


def test_a_stage_can_be_trained_for_a_time(first, store):
    found = experiment(stage1_seconds=1)
    assert found.stage1() is not found.stage1("concat", seconds=0)
    assert found.histories["stage 1 (seconds 0)"].steps[-1] == 3
    assert found.histories["stage 1"].steps[-1] > 3
    again = experiment(stage1_seconds=1)
    again.stage1()
    assert again.histories["stage 1"].steps[-1] > 3


def test_another_seed_trains_other_stages_and_keeps_the_judges(first, store):
    other = experiment(seed=1)
    names = stages(other)
    assert names["judges"] == store[2]["judges"]
    assert names["stage1"] != store[2]["stage1"]
    assert names["stage2"] != store[2]["stage2"]
    assert other.data("train").fingerprint == first.data("train").fingerprint
    found, expected = weights(other), weights(first)
    assert not torch.equal(found["fusion.layers.0.weight"], expected["fusion.layers.0.weight"])


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"stage2_depth": 2}, {"judges", "stage1"}),
        ({"stage2_ema": 0.5}, {"judges", "stage1"}),
        ({"stage1_beta": 2.0}, {"judges"}),
        ({"judge_width": 5}, {"stage1", "stage2"}),
        ({"train_size": 61}, set()),
        ({"test_size": 21}, {"judges", "stage1", "stage2"}),
    ],
    ids=lambda value: "-".join(sorted(value)),  # a set has no order of its own
)
def test_a_stage_is_trained_anew_where_what_made_it_differs(first, store, changes, kept):
    names = stages(experiment(**changes))
    assert {kind for kind, name in names.items() if name == store[2][kind]} == kept


def test_judges_are_those_of_seed_zero_whatever_the_seed(first, store, tmp_path, monkeypatch):
    """Made anew in another store, for another seed: the same bytes."""
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path))
    other = experiment(seed=3).judges()
    expected = first.judges().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())


def test_stages_made_anew_are_the_same_bytes(first, store, tmp_path, monkeypatch):
    """In another store, after other random numbers, none of which they take."""
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path))
    expected, before = weights(first), torch.random.get_rng_state()
    found = weights(experiment())
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_used_is_in_the_manifest(first, store):
    manifest = first.run.manifest()
    assert {artifact["name"] for artifact in manifest["artifacts"]} == set(store[2].values())
    assert set(store[2]) == {"judges", "stage1", "stage2"} <= set(manifest["stages"])
    fingerprints = {dataset["fingerprint"] for dataset in manifest["datasets"]}
    assert first.data("train").fingerprint in fingerprints


def test_histories_are_kept_with_the_stage(first):
    judges = {f"judge m{i}" for i in range(5)}
    assert set(first.histories) == judges | {"stage 1", "guide", "stage 2"}
    assert first.histories["stage 1"].steps == [1, 2, 3]
    assert {"loss", "kl", "log_likelihood"} <= first.histories["stage 1"].terms.keys()
    assert first.histories["stage 2"].seconds > 0


def test_encoders_are_aligned_first_where_asked_for(first, store):
    settings = dict(stage1_alignment=1.0, stage1_align_batch=16)
    plain, aligned = (experiment(**settings, stage1_align_steps=n) for n in (0, 2))
    found, expected = aligned.stage1().state_dict(), plain.stage1().state_dict()
    assert "alignment" not in plain.histories
    assert aligned.histories["alignment"].steps == [1, 2]
    assert aligned.histories["stage 1"].steps == [1, 2, 3]
    key = "encoders.nets.m0.head.0.weight"
    assert not torch.allclose(found[key], expected[key], atol=1e-3)


def test_encoders_are_aligned_once_for_all_models_that_have_them(first, store):
    settings = dict(stage1_alignment=1.0, stage1_align_steps=2, stage1_align_batch=16)
    found = experiment(**settings)
    found.stage1("sum")
    found.stage1("poe", beta=2.0)
    kinds = [one["kind"] for one in found.run.manifest()["artifacts"]]
    assert sorted(kinds) == ["aligned", "stage1", "stage1"]
    found.stage1("sum", feature_dim=4)
    kinds = [one["kind"] for one in found.run.manifest()["artifacts"]]
    assert kinds.count("aligned") == 2


def test_aligning_first_without_an_alignment_is_refused(first):
    with pytest.raises(ValueError, match="stage1_align_steps: 2 with no stage1_alignment"):
        experiment(stage1_align_steps=2).stage1()


def test_a_flow_map_is_a_stage_on_that_stage_2(first, store):
    made, before = experiment(), weights(first)
    flow_map = made.flow_map()
    assert made.histories["few steps"].steps == [1, 2, 3]
    assert flow_map.guidance == 1.0
    assert not flow_map.training
    teacher = flow_map.teacher.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in teacher.items())
    files_before = files()
    again = experiment(fewstep_guidance=4.0).flow_map(guidance=1)
    assert files() == files_before
    found = again.state_dict()
    assert all(torch.equal(v, found[key]) for key, v in flow_map.state_dict().items())
    strong = experiment(fewstep_guidance=4.0, fewstep_ema=0.5).flow_map()
    assert strong.guidance == 4.0
    assert files().keys() > files_before.keys()


def test_what_is_kept_of_a_stage_is_no_pickle_and_no_checkpoint(first, store):
    for name in store[2].values():
        folder = runs.root() / "artifacts" / name
        assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
        assert read_json(folder / "artifact.json")["files"].keys() == {
            path.name for path in folder.iterdir() if path.name != "artifact.json"
        }


def test_settings_reach_the_stages(first):
    vae, prior = first.stage1(), first.stage2()
    assert (vae.latent_dim, vae.feature_dim, vae.config["widths"]) == (4, 8, [3, 4])
    assert prior.config["depth"] == 1
    assert prior.latent_dim == vae.latent_dim
    assert first.judges()["m0"].config["width"] == 4
    assert [len(first.data(split)) for split in ("train", "val", "test")] == [60, 20, 20]


def test_stage_2_is_standardised_on_the_latents_of_the_training_data(first):
    mean, std = first.latents("train").statistics()
    torch.testing.assert_close(first.stage2().latent_mean, mean)
    torch.testing.assert_close(first.stage2().latent_std, std)


def test_latents_are_what_stage_1_says_of_a_split(first):
    latents = first.latents("test")
    batch = next(first.data("test").batches(20))
    with torch.no_grad():
        expected = first.stage1().posterior(first.stage1().features(batch["x"]))
    assert isinstance(latents.posterior, DiagonalGaussian)
    torch.testing.assert_close(latents.posterior.mean, expected.mean)


def test_models_come_frozen_in_evaluation_mode(first):
    model = first.model()
    assert not model.vae.training
    assert not model.prior.training
    assert not first.judges().training


def test_an_unknown_setting_of_a_stage_is_named(first):
    with pytest.raises(TypeError, match="dept"):
        experiment(stage2_dept=3).stage2()


def test_a_stage_stands_on_the_weights_below_and_not_on_their_settings(first, store, monkeypatch):
    """Trained for a time, or on a GPU, the same settings end in other weights."""
    found = experiment(seed=7)
    before, weights_before = found.stage2_folder(), found.stage1_folder() / "vae.safetensors"
    flow_map = found.flow_map()
    weights_before.write_bytes(b"damaged")
    monkeypatch.setattr(experiments, "seeded", lambda seed: seeded(seed + 1))
    again = experiment(seed=7)
    with pytest.warns(UserWarning, match="is damaged"):
        assert again.stage1_folder() == found.stage1_folder()
    assert again.stage2_folder() != before
    assert not torch.equal(again.flow_map().teacher.latent_mean, flow_map.teacher.latent_mean)


def test_a_training_has_the_name_that_its_caller_gives_it(first, store):
    """Whoever trained it first, with which parameters as changes."""
    long = experiment(stage1_beta=3.0)
    long.stage1("concat")
    short = experiment()
    short.stage1("concat", beta=3.0)
    assert set(long.histories) == {"stage 1"}
    assert set(short.histories) == {"stage 1 (beta 3.0)"}
