"""Scoring: every number is that of plain calls of model, judges and metrics, however it is cut."""

from itertools import pairwise

import pytest
import torch
from tiny_models import (
    LATENT,
    NAMES,
    rng,
    tiny_dataset,
    tiny_latents,
    tiny_modalities,
    tiny_prior,
    tiny_vae,
)

from shala_lite import evaluation, metrics
from shala_lite.judges import Judges
from shala_lite.runs import check_metric

SETTINGS = dict(steps=2, sampler="heun", guidance=1.0, seed=0)


@pytest.fixture(scope="module")
def data():
    return tiny_dataset(60)


@pytest.fixture(scope="module")
@torch.no_grad()
def judges(data):
    """Untrained judges, centred so that they give all kinds of labels to what is generated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judges = Judges.for_modalities(tiny_modalities(), width=4).eval()
    z = 2 + 3 * torch.randn(200, LATENT, generator=rng())
    for name, images in tiny_vae().decode(z).items():
        judges[name].head.bias -= judges[name](images).mean(0)
    judges.fit_feature_statistics(data)
    for labels in judges.predict(tiny_vae().decode(z)).values():
        assert len(labels.unique()) > 5  # else the tests below could compare constants
    return judges


def stages(stirred=True):
    prior = tiny_prior(stirred=stirred)
    prior.standardise(tiny_latents())
    return tiny_vae(), prior


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_judging_latents_is_decoding_and_judging(judges):
    vae, z = tiny_vae(), torch.randn(30, LATENT, generator=rng())
    found = evaluation.judge_latents(vae, judges, z)
    with torch.no_grad():
        expected = judges.judge(vae.decode(z))
    assert_same(found.labels, {name: judged.labels for name, judged in expected.items()})
    assert_same(found.features, {name: judged.features for name, judged in expected.items()})
    assert not any(h.requires_grad for h in found.features.values())


def test_judging_data_is_predicting_it(judges, data):
    found = evaluation.judge_dataset(judges, data)
    assert_same(found.labels, judges.predict(data.observations))
    assert_same(found.features, judges.features(data.observations))


@pytest.mark.parametrize("chunk", [1, 7, 60])
def test_the_size_of_chunks_is_irrelevant(judges, data, monkeypatch, chunk):
    (vae, prior), z = stages(), torch.randn(13, LATENT, generator=rng())

    def scores():
        return {
            "latents": evaluation.judge_latents(vae, judges, z).features["a"],
            "data": evaluation.judge_dataset(judges, data).features["b"],
            "features": evaluation.features_of(vae, data)["c"],
            "pairs": evaluation.conditional(vae, prior, judges, data, **SETTINGS).coherence.matrix,
        }

    expected = scores()
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    for name, found in scores().items():
        atol = 2 / 60 if name == "pairs" else 1e-4  # a label may flip where two classes are equal
        torch.testing.assert_close(found, expected[name], atol=atol, rtol=1e-4, equal_nan=True)


def test_features_are_those_of_stage_1(data):
    vae = tiny_vae()
    x = next(data.batches(60))["x"]
    found = evaluation.features_of(vae, data)
    assert_same(found, {name: h.detach() for name, h in vae.features(x).items()})
    assert not found["a"].requires_grad


def test_real_data_against_itself_are_perfect(judges, data):
    judged = evaluation.judge_dataset(judges, data)
    scores = evaluation.joint_scores(judged, judged)
    assert scores["frechet_judge"] == pytest.approx(0, abs=1e-4)
    assert scores["precision"] == scores["recall"] == 1
    assert scores["samples"] == 60
    assert {name.split("@")[0] for name in scores} == {*evaluation.JOINT, "samples"}


def test_joint_scores_compare_equally_many(judges, data):
    many = evaluation.judge_dataset(judges, data)
    few = evaluation.judge_dataset(judges, data.subset(slice(0, 40)))
    for generated, reference in ((few, many), (many, few)):
        scores = evaluation.joint_scores(generated, reference)
        assert scores["samples"] == 40
        assert scores["frechet_judge"] == pytest.approx(0, abs=1e-4)
        assert scores["precision"] == scores["recall"] == 1


def test_joint_scores_are_the_metrics_of_labels_and_features(judges, data):
    judged = evaluation.judge_dataset(judges, data)
    z = torch.randn(60, LATENT, generator=rng())
    generated = evaluation.judge_latents(tiny_vae(), judges, z)
    scores = evaluation.joint_scores(generated, judged)
    expected = metrics.set_scores(generated.labels) | {"samples": 60}
    expected |= metrics.feature_scores(judged.features, generated.features)
    assert scores == expected
    assert scores["frechet_judge"] > 0.1


def test_manifolds_leave_out_what_repeats(judges, data):
    # Ten items, then each of them five times more: their third neighbours are copies.
    again = data.subset(torch.arange(10).repeat(6))
    found = evaluation.judge_dataset(judges, data)
    empty = evaluation.joint_scores(found, evaluation.judge_dataset(judges, again))
    again.distinct = 10
    reference = evaluation.judge_dataset(judges, again)
    scores = evaluation.joint_scores(found, reference)
    assert empty["precision"] < scores["precision"] == scores["recall"] == 1
    assert scores["frechet_judge"] == empty["frechet_judge"] > 0


def test_the_scoreboard_has_every_variant_with_its_ceiling_and_floor(judges, data):
    vae = tiny_vae()
    latents = {
        "prior": torch.randn(60, LATENT, generator=rng(1)),
        "standard_normal": torch.randn(60, LATENT, generator=rng(2)),
    }
    other = tiny_dataset(60, seed=5)
    board = evaluation.scoreboard(vae, judges, latents, other, data)
    for name in board:
        check_metric(name, metrics.KEYS)
    reference = evaluation.judge_dataset(judges, data)
    for variant, z in latents.items():
        own = evaluation.joint_scores(evaluation.judge_latents(vae, judges, z), reference)
        assert {f"{variant}/{key}": value for key, value in own.items()}.items() <= board.items()
    accuracy = judges.accuracy(data)
    ceiling = board["judge/conditional_coherence"]
    assert ceiling == pytest.approx(sum(accuracy.values()) / len(accuracy))
    assert board["floor/conditional_coherence"] == pytest.approx(0.1)  # ten classes, equally often
    real = evaluation.joint_scores(evaluation.judge_dataset(judges, other), reference)
    assert board["floor/frechet_judge"] == real["frechet_judge"]


def test_generating_from_each_source_is_a_sample_given_its_features(judges, data):
    vae, prior = stages()
    found = evaluation.conditional(vae, prior, judges, data, **SETTINGS | {"guidance": 2.0})
    assert torch.equal(found.truth, data.labels)
    assert list(found.predictions) == list(NAMES)
    features = evaluation.features_of(vae, data)
    for source in NAMES:
        given = {source: features[source]}
        sample = prior.sample(60, given, steps=2, guidance=2.0, generator=rng())
        with torch.no_grad():
            assert_same(found.predictions[source], judges.predict(vae.decode(sample.z)))
        assert found.nfe == sample.nfe == 6


def test_coherence_is_that_of_the_metrics_and_its_mean_over_items(judges, data):
    vae, prior = stages()
    found = evaluation.conditional(vae, prior, judges, data, **SETTINGS)
    expected = metrics.conditional_coherence(found.predictions, data.labels)
    assert found.coherence.mean == expected.mean
    torch.testing.assert_close(found.coherence.matrix, expected.matrix)
    assert found.right.shape == (60,)
    assert found.right.mean().item() == pytest.approx(expected.mean)
    assert found.scores("prior") == {
        "prior/conditional_coherence": expected.mean,
        "prior/nfe": 3.0,
    }


def test_settings_are_compared_on_the_same_noise(judges, data):
    """Before training the condition counts for nothing: only the noise is left."""
    vae, prior = stages(stirred=False)
    found = [
        evaluation.conditional(vae, prior, judges, data, **SETTINGS | options).predictions
        for options in ({}, {"guidance": 3.0}, {"seed": 1})
    ]
    for source, after in pairwise(NAMES):
        assert_same(found[0][source], found[0][after])
    assert_same(found[0]["a"], found[1]["a"])
    assert not torch.equal(found[0]["a"]["a"], found[2]["a"]["a"])


def test_coherence_by_number_of_sources_is_that_of_random_subsets(judges, data):
    vae, prior = stages()
    found = evaluation.coherence_by_sources(vae, prior, judges, data, **SETTINGS)
    assert list(found) == [1, 2]
    features = evaluation.features_of(vae, data)
    for size, coherence in found.items():
        given = metrics.random_subsets(60, 3, size, rng())
        sample = prior.sample(60, features, given, steps=2, generator=rng())
        labels = evaluation.judge_latents(vae, judges, sample.z).labels
        assert coherence == metrics.coherence_of_absent(labels, data.labels, given)


@pytest.mark.parametrize("variant", ["concat", "poe", "moe", "mopoe", "mmvaeplus"])
def test_without_a_prior_the_posterior_of_the_source_generates(judges, data, variant):
    vae = tiny_vae(variant=variant)
    found = evaluation.conditional(vae, None, judges, data, seed=0)
    features = evaluation.features_of(vae, data)
    assert found.nfe == 0
    for source in NAMES:
        z = vae.generator_of({source: features[source]}).sample(rng())
        assert_same(found.predictions[source], evaluation.judge_latents(vae, judges, z).labels)
    by_sources = evaluation.coherence_by_sources(vae, None, judges, data, seed=0)
    for size, coherence in by_sources.items():
        given = metrics.random_subsets(60, 3, size, rng())
        z = vae.generator_of(features, given).sample(rng())
        labels = evaluation.judge_latents(vae, judges, z).labels
        assert coherence == metrics.coherence_of_absent(labels, data.labels, given)
    with pytest.raises(ValueError, match=r"options: \{'steps': 2\} of a sampler with prior None"):
        evaluation.conditional(vae, None, judges, data, seed=0, steps=2)


def test_nothing_touches_the_global_random_state(judges, data):
    before = torch.random.get_rng_state()
    vae, prior = stages()
    evaluation.conditional(vae, prior, judges, data, **SETTINGS)
    evaluation.coherence_by_sources(vae, prior, judges, data, **SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("sweep", "best"),
    [
        ({1.0: 0.5, 2.0: 0.7, 3.0: 0.6}, 2.0),
        ({3.0: 0.6, 2.0: 0.6, 1.5: 0.6}, 1.5),
        ({4.0: 0.6, 0.5: 0.6}, 0.5),
        ({2.0: 0.1}, 2.0),
    ],
)
def test_the_best_guidance_scores_highest_and_of_equals_guides_least(sweep, best):
    assert evaluation.best_guidance(sweep) == best
    assert evaluation.best_guidance(dict(reversed(sweep.items()))) == best


def test_no_sweep_has_no_best():
    with pytest.raises(ValueError, match="sweep is empty"):
        evaluation.best_guidance({})
    with pytest.raises(ValueError, match="sweep is empty"):
        evaluation.least_guidance({})


@pytest.mark.parametrize(
    ("sweep", "tolerance", "best"),
    [
        ({1.0: 14.0, 2.0: 10.1, 3.0: 10.0, 4.0: 10.3}, 0.02, 2.0),  # a tie but for noise
        ({1.0: 14.0, 2.0: 10.1, 3.0: 10.0}, 0.0, 3.0),
        ({0.5: 10.0, 1.0: 10.1, 2.0: 10.0}, 0.02, 1.0),  # none is needed
        ({1.0: 14.0, 3.0: 12.0, 6.0: 10.0}, 0.02, 6.0),
    ],
)
def test_the_least_guidance_is_the_smallest_that_is_nearly_best(sweep, tolerance, best):
    assert evaluation.least_guidance(sweep, tolerance) == best
    assert evaluation.least_guidance(dict(reversed(sweep.items())), tolerance) == best


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match=r"tolerance is -0\.1; expected at least 0"):
        evaluation.least_guidance({1.0: 2.0}, -0.1)


def test_missing_observations_are_refused_and_not_taken_for_given(data, judges):
    vae, prior = stages()
    some = data.with_missing(0.3)
    for score in (evaluation.conditional, evaluation.coherence_by_sources):
        with pytest.raises(ValueError, match=r"data: \d+ of 180 observations missing"):
            score(vae, prior, judges, some, **SETTINGS)
    with pytest.raises(ValueError, match="expected complete items"):
        evaluation.judge_dataset(judges, some)
