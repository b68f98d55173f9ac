"""Publishing: seeds accumulate exactly, unlike runs are refused, edits are noticed."""

import json
import shutil
from statistics import mean, stdev

import pytest

from shala_lite import publish as publishing
from shala_lite import runs
from shala_lite.publish import (
    all_published,
    changed_code,
    publish,
    published,
    std_name,
    summary,
)

KEYS = {"conditional_coherence": "share", "nfe": "evaluations"}
WHERE = ("03_fused_encoder", "polymnist", "real", "laptop")


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shala_lite"\n')
    (tmp_path / "book").mkdir()
    return tmp_path / "book"


class Figure:
    def __init__(self, content):
        self.content = content

    def savefig(self, file, **_):
        file.write(self.content)


class Data:
    name, split, source = "polymnist", "test", "real"

    def __init__(self, size, fingerprint, note):
        self.size, self.fingerprint, self.note = size, fingerprint, note

    def __len__(self):
        return self.size


def finished(seed, value=0.5, *, images=(), size=100, note="a recipe", metrics=None, **parameters):
    """Folder of a finished run."""
    fixed = {"dataset": "polymnist", "source": "real", "profile": "laptop", "root": f"/d{seed}"}
    namespace = {**fixed, "steps": 10, "seed": seed, **parameters}
    run = runs.start(WHERE[0], namespace, keys=KEYS, sources=["modalities", "files"])
    run.record_all(metrics or {"prior/conditional_coherence@1_source": value, "prior/nfe": 8})
    run.dataset(Data(size, f"composed by seed {seed}", note))
    for name in images:
        run.save_image(name, Figure(f"{name} of {seed}".encode()))
    return run.finish()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_one_seed_has_a_mean_and_no_deviation():
    result = publish(finished(4, 0.25))
    assert result.metrics == {
        "prior/conditional_coherence@1_source": 0.25,
        "prior/nfe": 8,
        "seeds": 1,
    }
    assert result.text("prior/conditional_coherence@1_source") == "0.250"


def test_seeds_accumulate_exactly_in_any_order_and_one_again_takes_its_place(book):
    values = {0: 0.125, 1: 0.5, 2: 0.75}
    for seed in (2, 0, 1):
        publish(finished(seed, 0.9 if seed == 0 else values[seed]))
    result = publish(finished(0, values[0]))
    name = "prior/conditional_coherence@1_source"
    assert result.seeds == [0, 1, 2]
    assert result.metrics["seeds"] == 3
    assert result.metrics[name] == pytest.approx(mean(values.values()), abs=1e-15)
    deviation = result.metrics["prior/conditional_coherence_std@1_source"]
    assert deviation == pytest.approx(stdev(values.values()), abs=1e-15)
    assert result.metrics["prior/nfe_std"] == 0
    assert result.text("prior/nfe") == "8.000"
    assert result.text(name) == f"{mean(values.values()):.3f} ±\N{NO-BREAK SPACE}{deviation:.3f}"
    in_order = contents(result.folder)
    shutil.rmtree(book / "results")
    for seed, value in values.items():
        again = publish(finished(seed, value))
    assert contents(again.folder)["metrics.json"] == in_order["metrics.json"]


def test_the_manifest_has_an_entry_per_run_and_no_path_of_the_machine():
    publish(finished(0, 0.25))
    result = publish(finished(1, 0.75))
    assert [run["seed"] for run in result.manifest["runs"]] == [0, 1]
    values = [
        run["metrics"]["prior/conditional_coherence@1_source"] for run in result.manifest["runs"]
    ]
    assert values == [0.25, 0.75]
    assert result.manifest["parameters"]["steps"] == 10
    assert "/d0" not in (result.folder / "manifest.json").read_text()
    assert "2 seeds (0, 1)" in result.origin
    assert "laptop" in result.origin
    assert "polymnist, real data (a recipe), " in result.origin


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"steps": 20}, "parameter steps is 20 in this run and 10 in the published run of seed 0"),
        ({"width": 8}, "parameter width is 8 in this run and 'absent'"),
        ({"size": 50}, "data polymnist test is 'real, 50, a recipe' .* 'real, 100, a recipe'"),
        (
            {"note": "another"},
            "data polymnist test is 'real, 100, another' .* 'real, 100, a recipe'",
        ),
        ({"metrics": {"prior/nfe": 8}}, "metric prior/conditional_coherence@1_source is 'absent'"),
    ],
)
def test_runs_that_differ_are_not_averaged(changes, names):
    before = contents(publish(finished(0)).folder)
    with pytest.raises(ValueError, match=names) as error:
        publish(finished(1, **changes))
    assert contents(publishing.results_folder(*WHERE)) == before
    assert "to start anew" in str(error.value)
    assert publish(finished(0, **changes)).seeds == [0]  # alone, it may differ from what it was


def test_images_are_those_of_the_smallest_seed():
    assert publish(finished(1, images=["grid", "old"])).images["old"].read_bytes() == b"old of 1"
    assert publish(finished(2, images=["grid"])).images["grid"].read_bytes() == b"grid of 1"
    result = publish(finished(0, images=["grid"]))
    assert result.images["grid"].read_bytes() == b"grid of 0"
    assert sorted(p.name for p in result.folder.glob("*.png")) == ["grid.png"]
    assert result.manifest["images"]["seed"] == 0
    assert "3 seeds (0, 1, 2)" in result.origin
    assert "1 seed (0)" in result.images_origin


def test_an_image_over_the_limit_is_refused_and_nothing_changes(monkeypatch):
    folder = finished(0, images=["large"])
    monkeypatch.setattr(publishing, "IMAGE_BYTES", len(b"large of 0") - 1)
    with pytest.raises(ValueError, match=r"large\.png has 10 bytes; at most 9"):
        publish(folder)
    assert published(*WHERE) is None


def break_metrics(folder):
    (folder / "metrics.json").write_text('{"prior/nfe": 1}')


def empty(folder):
    (folder / "metrics.json").unlink()


@pytest.mark.parametrize(
    ("harm", "names"),
    [(break_metrics, "not the one its manifest"), (empty, "no metrics.json: it is no finished")],
)
def test_a_run_that_did_not_finish_is_refused(harm, names):
    folder = finished(0)
    harm(folder)
    with pytest.raises(ValueError, match=names):
        publish(folder)
    assert published(*WHERE) is None


def test_what_is_not_published_is_none_and_an_unknown_metric_an_error():
    assert published(*WHERE) is None
    assert all_published() == []
    publish(finished(0))
    result = published(*WHERE)
    assert result is not None
    assert [found.folder for found in all_published()] == [result.folder]
    with pytest.raises(ValueError, match="no metric 'prior/recall'"):
        result.text("prior/recall")


def test_a_number_typed_in_by_hand_is_noticed():
    path = publish(finished(0)).folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prior/nfe": 1}))
    with pytest.raises(ValueError, match="not the summary of the runs"):
        published(*WHERE)


def test_code_that_changed_since_any_run_is_named(monkeypatch):
    result = publish(finished(0))
    assert changed_code(result) == []
    monkeypatch.setattr(publishing, "module_digest", lambda m: "new" if "files" in m else None)
    assert changed_code(result) == [
        "shala_lite.files",
        "shala_lite.modalities",
        "shala_lite.vocabulary",
    ]
    monkeypatch.undo()
    result.manifest["runs"][0]["code"]["shala_lite.files"] = "old"
    assert changed_code(result) == ["shala_lite.files"]


def test_of_the_ends_of_intervals_the_outermost_are_kept():
    ends = {"a/nfe": (1.0, 2.0), "a/nfe@low": (-0.5, -0.25), "a/nfe@1_to_2_high": (0.5, 0.25)}
    assert summary([{name: x[i] for name, x in ends.items()} for i in (0, 1)]) == {
        "seeds": 2,
        "a/nfe": 1.5,
        "a/nfe_std": pytest.approx(0.5**0.5),
        "a/nfe@low": -0.5,
        "a/nfe@1_to_2_high": 0.5,
    }


def test_the_deviations_name_keeps_variant_and_slice():
    assert std_name("poe+prior/nfe") == "poe+prior/nfe_std"
    assert std_name("prior/nfe@8_steps") == "prior/nfe_std@8_steps"
