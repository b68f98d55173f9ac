"""Quality against the number of views: models and data of every number, judges of all."""

import pytest
import torch

from shala_lite import metrics, runs
from shala_lite.datasets import shapenet
from shala_lite.experiments import Experiment
from shala_lite.more_judges import view_judge, view_matcher
from shala_lite.runs import check_metric
from shala_lite.view_evaluation import ViewEvaluation
from shala_lite.view_scaling import quality_by_count

PARAMETERS = {
    "profile": "smoke",
    "dataset": "shapenet",
    "source": "embedded",
    "root": None,
    "seed": 0,
    "train_size": 24,
    "test_size": 16,
    "stage1_latent_dim": 4,
    "stage1_feature_dim": 6,
    "stage1_widths": [4, 8],
    "stage1_decoder": "layered",
    "stage1_decoder_hidden": 8,
    "stage1_shared_nets": True,
    "stage1_alignment": 1.0,
    "stage1_align_steps": 1,
    "stage1_steps": 1,
    "stage1_batch": 4,
    "stage1_rate": 0.01,
    "stage2_denoiser": "mlp",
    "stage2_width": 8,
    "stage2_depth": 1,
    "stage2_guide_width": 0,
    "stage2_steps": 1,
    "stage2_batch": 8,
    "stage2_rate": 0.01,
    "sample_steps": 2,
    "eye_width": 4,
    "eye_steps": 2,
    "eye_batch": 16,
    "matcher_widths": [4, 8],
    "matcher_steps": 2,
    "matcher_batch": 8,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHALA_RUNS", str(tmp_path_factory.mktemp("runs")))
        run = runs.start("zz_test", PARAMETERS, keys=metrics.KEYS)
        experiment = Experiment(run)
        data = [experiment.data(split) for split in ("train", "test")]
        cameras = torch.from_numpy(shapenet.RIGS["shapenet"].matrices())
        critics = ViewEvaluation(view_judge(experiment), view_matcher(experiment), *data, cameras)
        yield run, quality_by_count(experiment, critics, [2, 4], ["concat", "moe"], 0.4)


def test_every_number_of_views_has_its_scores(study):
    _, found = study
    for name in found:
        check_metric(name, metrics.KEYS)
    for variant in ("concat", "moe"):
        for key in ("hull_score", "view_agreement", "attribute_entropy"):
            assert {f"{variant}/{key}@{views}_views" for views in (2, 4)} <= set(found)
    # real outlines come back from the solid that two of them leave, and from that of four
    assert found["judge/hull_iou@2_views"] > 0.9
    assert found["judge/hull_iou@4_views"] > 0.9


def test_its_models_are_trained_on_those_views_alone(study):
    run, _ = study
    labels = [known["training"] for known in run.manifest()["trainings"]]
    assert len([label for label in labels if label.startswith("stage 1")]) == 4
    assert any(label.startswith("stage 1 moe") for label in labels)
    stages = [a["name"] for a in run.manifest()["artifacts"] if a["name"].startswith("stage")]
    assert len([name for name in stages if name.startswith("stage1")]) == 4
    assert len([name for name in stages if name.startswith("stage2")]) == 2
