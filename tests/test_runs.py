"""Run folders, metrics and manifests."""

import json
import math
from dataclasses import dataclass
from datetime import datetime

import pytest

from shala_lite import runs

KEYS = {"conditional_coherence": "share", "nfe": "evaluations", "latent_std": "1"}
PARAMETERS = {
    "profile": "quick",
    "dataset": "polymnist",
    "source": "embedded",
    "root": None,
    "seed": 0,
    "steps": 10,
}
CELL = "\n".join(f"{name} = {value!r}" for name, value in PARAMETERS.items())


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A clone with one chapter, in which the test stands."""
    monkeypatch.setenv("SHALA_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shala_lite"\n')
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": CELL}
    (tmp_path / "book" / "01_tiny.ipynb").write_text(json.dumps({"cells": [cell]}))
    return tmp_path


def start(chapter="01_tiny", **changes):
    namespace = {"__name__": "__main__", "In": ["a = 1"], "Out": {}, "_": 3, "math": math}
    return runs.start(chapter, {**namespace, **PARAMETERS, **changes}, keys=KEYS, sources=[])


def saved(run, name):
    return json.loads((run.folder / f"{name}.json").read_text())


def test_the_folder_says_what_the_run_is_and_follows_from_its_parameters(project):
    run = start()
    assert run.parameters == PARAMETERS
    assert run.folder == runs.run_folder("01_tiny", PARAMETERS)
    assert run.folder.parent == project / "runs" / "01_tiny"
    assert run.folder.name.startswith("polymnist-embedded-quick-seed0-")
    folders = {start(**change).folder for change in ({}, {"steps": 11}, {"seed": 1})}
    assert len(folders) == 3
    shuffled = dict(reversed(PARAMETERS.items()))
    assert runs.run_folder("01_tiny", shuffled) == run.folder


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"stepz": 3}, "unknown parameter 'stepz' .did you mean steps.*there are dataset, profile"),
        ({"steps": print}, "missing steps"),
        ({"steps": "many"}, "steps is 'many', a str; expected int"),
        ({"root": float("inf")}, "root is inf; expected a finite number"),
    ],
)
def test_parameters_that_are_not_the_notebooks_are_an_error(changes, names):
    with pytest.raises(ValueError, match=names):
        start(**changes)


def test_outside_the_book_any_parameters_will_do_but_the_folders_words(project):
    assert start("my_own", more=[1, 2]).parameters["more"] == [1, 2]
    with pytest.raises(ValueError, match="seed is '0'; expected int"):
        start("my_own", seed="0")
    with pytest.raises(ValueError, match=r"dataset is '\.\./up'; expected str, one word"):
        start("my_own", dataset="../up")


def test_metrics_are_flat_sorted_and_hold_the_last_value(project):
    run = start()
    run.record("prior", "nfe", 250)
    run.record("prior", "nfe", 251)
    run.record_all({"oracle/conditional_coherence": 0.9, "prior/nfe@guidance_1.5": 8})
    run.record("poe+prior", "conditional_coherence", 0.5, slice="2_sources")
    run.finish()
    assert list(saved(run, "metrics").items()) == [
        ("oracle/conditional_coherence", 0.9),
        ("poe+prior/conditional_coherence@2_sources", 0.5),
        ("prior/nfe", 251.0),
        ("prior/nfe@guidance_1.5", 8.0),
    ]


@pytest.mark.parametrize(
    ("name", "value", "names"),
    [
        ("prior/conditional_coherense", 0.5, "close: conditional_coherence"),
        ("prior/zzz", 0.5, "close: conditional_coherence, latent_std, nfe"),
        ("prior/nfe_std", 0.5, "`_std` is over seeds"),
        ("prior/nfe", float("nan"), "'prior/nfe' is nan; expected a finite number"),
        ("prior/nfe@1_source", float("inf"), "is inf"),
        ("nfe", 0.5, "expected `variant/key`"),
        ("prior/a/nfe", 0.5, "expected `variant/key`"),
        ("the prior/nfe", 0.5, "expected `variant/key`"),
        ("prior/nfe@", 0.5, "expected `variant/key`"),
    ],
)
def test_a_metric_that_is_not_registered_or_not_finite_is_an_error(name, value, names):
    run = start()
    with pytest.raises(ValueError, match=names):
        run.record_all({name: value})
    assert run.metrics == {}


def test_a_registered_key_may_end_in_std():
    run = start()
    run.record("prior", "latent_std", 1.0)
    assert run.metrics == {"prior/latent_std": 1.0}


@dataclass
class Data:
    name: str = "polymnist"
    split: str = "test"
    source: str = "embedded"
    note: str = "digits"
    fingerprint: str = "abc"

    def __len__(self):
        return 7


def test_the_manifest_says_how_the_numbers_came_about():
    made = runs.artifact("judge", {"seed": 0}, ["modalities"], lambda f: (f / "w").write_text("1"))
    run = start()
    run.dataset(Data())
    run.dataset(Data())
    run.dataset(Data(split="train", fingerprint="def"))
    assert run.used(made) == made
    with run.stage("stage 1"):
        pass
    with run.stage("stage 2"), run.stage("judging"):
        pass
    run.record("prior", "nfe", 8)
    run.finish()
    manifest = saved(run, "manifest")
    assert manifest["parameters"] == PARAMETERS
    assert (manifest["profile"], manifest["seed"]) == ("quick", 0)
    assert [d["split"] for d in manifest["datasets"]] == ["test", "train"]
    known = {"size": 7, "fingerprint": "abc", "note": "digits"}
    assert manifest["datasets"][0] | known == manifest["datasets"][0]
    (judge,) = manifest["artifacts"]
    assert made.name == f"judge-{judge['hash']}"
    assert set(manifest["stages"]) == {"stage 1", "stage 2", "judging"}
    assert all(s["peak_memory_mib"] > 0 for s in manifest["stages"].values())
    assert "shala_lite.modalities" in manifest["code"]
    assert {"commit", "dirty", "versions", "device", "threads"} <= set(manifest)
    started, finished = (datetime.fromisoformat(manifest[k]) for k in ("started", "finished"))
    assert started <= finished


def test_a_stage_that_is_entered_twice_adds_up(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 15.0])
    monkeypatch.setattr("shala_lite.machine.perf_counter", lambda: next(clock))
    run = start()
    for _ in range(2):
        with run.stage("stage 1"):
            pass
    assert run.manifest()["stages"]["stage 1"]["seconds"] == 2 + 5


def test_code_is_that_of_the_named_modules_or_of_all_loaded():
    from shala_lite import modalities, vocabulary

    named = runs.start("01_tiny", PARAMETERS, keys=KEYS, sources=["modalities"])
    # and what it imports
    assert set(named.manifest()["code"]) == {modalities.__name__, vocabulary.__name__}
    loaded = runs.start("01_tiny", PARAMETERS, keys=KEYS)
    assert modalities.__name__ in loaded.manifest()["code"]
    assert "shala_lite.runs" not in loaded.manifest()["code"]


class Figure:
    def __init__(self, content):
        self.content = content

    def savefig(self, file, **options):
        assert options["format"] == "png"
        file.write(self.content)


def test_what_an_earlier_run_saved_stays_until_the_next_one_finishes():
    first = start()
    first.record("prior", "nfe", 8)
    first.save_image("samples", Figure(b"first"))
    first.finish()
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    assert before["samples.png"] == b"first"

    second = start()
    second.record("prior", "nfe", 16)
    second.save_image("samples", Figure(b"second"))
    assert second.folder == first.folder
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before

    second.finish()
    assert saved(second, "metrics") == {"prior/nfe": 16.0}
    assert (second.folder / "samples.png").read_bytes() == b"second"
    assert saved(second, "manifest")["images"] == ["samples.png"]


def test_images_have_plain_names():
    with pytest.raises(ValueError, match=r"name is '\.\./samples'"):
        start().save_image("../samples", Figure(b""))
