"""The chapter of birds on photographs, of which no attributes are known, at smoke size."""

import json

import numpy as np
import pytest
from PIL import Image
from small_cub import write_cub

from data_scripts import cub
from shala_lite.__main__ import main

CHAPTER = "08_cub_captions"
SIZES = {"train_size": 200, "test_size": 20}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of the finished run."""
    root = tmp_path_factory.mktemp("cub")
    write_cub(root / "local", captions=10)
    arguments = ["--root", root, "--from", root / "local", "--captions", "template", "--quiet"]
    assert cub.main([str(argument) for argument in arguments]) == 0
    given = {"source": "real", "root": root, **SIZES}
    told = [word for name, value in given.items() for word in ("-p", name, str(value))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHALA_RUNS", str(root / "runs"))
        assert main(["run", CHAPTER, "--profile", "smoke", *told]) == 0
    (folder,) = (root / "runs" / CHAPTER).iterdir()
    return folder


def test_its_numbers_are_those_of_partners_alone(done):
    names = json.loads((done / "metrics.json").read_text())
    for variant in ("prior", "prior_guidance_1"):
        share = names[f"{variant}/retrieval_accuracy@by_picture"]
        assert 0 <= names[f"{variant}/retrieval_accuracy@by_picture_at_least"] <= share
    assert {name.split("/")[1] for name in names if name.startswith("mentions_1")} == {
        "retrieval_accuracy@by_picture"
    }
    assert not [name for name in names if "attribute" in name or "judge_accuracy" in name]


def test_its_captions_are_named(done):
    manifest = json.loads((done / "manifest.json").read_text())
    assert all("template captions" in data["note"] for data in manifest["datasets"])


def test_its_pictures_for_publishing_have_no_photograph(done):
    """The small photographs are of one colour each, which no net of this size paints."""
    seen = np.asarray(Image.open(done / "directions.png").convert("RGB")).astype(int)
    still = (abs(np.diff(seen, axis=1)).max(-1) == 0).astype(float)
    grey = np.ptp(seen, axis=-1) < 8
    runs = np.lib.stride_tricks.sliding_window_view(still, 60, axis=1).min(-1)
    assert not (runs.astype(bool) & ~grey[:, : runs.shape[1]]).any()
