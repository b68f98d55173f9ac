"""The benchmark, as far as it is ours: none of these tests needs MultiVae."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import rng, tiny_dataset

from benchmarks import clock, scores, settings, stage1, table, throughput, worker
from benchmarks.clock import WARM, StepClock
from benchmarks.contenders import CALIBRATION, steps_in
from benchmarks.settings import MODELS, OURS, PEERS, Settings, parse
from shala_lite import metrics
from shala_lite.judges import Judges

TINY = dict(
    train_size=256,
    test_size=40,
    seconds=0.05,
    batch=8,
    widths=(4, 8),
    hidden=8,
    feature_dim=8,
    latent_dim=4,
    private_dim=2,
    judge_width=4,
    judge_steps=2,
    rounds=1,
    round_steps=1,
)


# Settings


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("source", "imaginary"),
        ("models", ("concat", "magic")),
        ("models", ()),
        ("seconds", 0.0),
        ("batch", 0),
        ("batch", 20_000),
        ("train_size", 255),
        ("widths", (16, 0)),
        ("seed", -1),
        ("prior_share", 1.0),
        ("likelihood_scale", -0.1),
    ],
)
def test_a_setting_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=f"^--{option.replace('_', '-')}: "):
        Settings(**{option: value})


def test_the_command_line_gives_the_settings():
    assert parse([]) == Settings()
    given = parse("--seconds 5 --models concat multivae_mopoe --widths 4 8 --seed 3".split())
    assert given == Settings(
        seconds=5.0, models=("concat", "multivae_mopoe"), widths=(4, 8), seed=3
    )


def test_a_bad_command_line_ends_with_one_line(capsys):
    with pytest.raises(SystemExit):
        parse(["--prior-share", "1.5"])
    assert "--prior-share: 1.5, expected less than 1" in capsys.readouterr().err


def test_models_are_ours_and_the_peers_and_every_one_is_timed():
    assert set(MODELS) == {*OURS, *PEERS}
    timed = {name for pair in throughput.PAIRS for name in pair}
    assert timed == set(MODELS) - {"concat+prior"}
    for ours, theirs in throughput.PAIRS:
        assert ours in OURS
        assert theirs in PEERS


# Time


class Hands:
    """A clock that tests turn."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def hands(monkeypatch):
    found = Hands()
    monkeypatch.setattr(clock, "perf_counter", found)
    monkeypatch.setattr(clock, "process_time", lambda: found.now / 2)
    return found


@pytest.mark.parametrize("steps", [1, 5])
def test_a_step_is_timed_without_its_warm_up(hands, steps):
    timed = StepClock(WARM + 1 + steps)
    for step in range(timed.steps):
        timed()
        hands.now += 100.0 if step < WARM else 0.25
    assert timed.seconds_per_step == pytest.approx(0.25)
    assert timed.cpu_seconds_per_step == pytest.approx(0.125)


def test_a_clock_that_was_not_called_to_the_end_says_so(hands):
    timed = StepClock(5)
    for _ in range(4):
        timed()
    with pytest.raises(RuntimeError, match="called 4 times, expected 5"):
        _ = timed.seconds_per_step
    with pytest.raises(ValueError, match="steps: 3"):
        StepClock(3)


def test_seconds_become_steps_that_take_as_long(hands, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    asked = []

    def train(steps, timed):
        asked.append(steps)
        for _ in range(steps):
            timed()
            hands.now += 0.5

    # a step takes 0.25 CPU seconds, on two threads: what else the machine did does not count
    assert steps_in(30.0, train) == 240
    assert steps_in(0.001, train) == 1
    assert asked == [WARM + 1 + CALIBRATION] * 2


def test_our_models_are_timed_in_both_ways_and_in_bf16():
    given = Settings(**TINY, models=("concat",))
    data = tiny_dataset(60, names=("a", "b"), shape=(3, 8, 8))
    rows = throughput.measure(("concat", "multivae_mvtcae"), data, given)
    assert [(r["way"], r["precision"]) for r in rows] == [
        ("step", "32-true"),
        ("trainer", "32-true"),
        ("trainer", "bf16-mixed"),
    ]
    assert all(row["items_per_second"] > 0 for row in rows)
    assert not any("ratio" in row for row in rows)  # nothing stands beside it


def test_turns_alternate_and_the_ratio_is_taken_round_by_round(monkeypatch):
    turns = []

    class Fake:
        def __init__(self, model, data, *_):
            self.name, self.turn = model.name, 0

        def timed(self, steps):
            turns.append(self.name)
            self.turn += 1
            # the whole machine is four times slower in the second round
            own = 2.0 if self.name in PEERS else 1.0
            load = 4.0 if self.turn == 2 else 1.0
            return SimpleNamespace(seconds_per_step=own * load, cpu_seconds_per_step=own**2)

    monkeypatch.setattr(throughput, "_BareStep", Fake)
    monkeypatch.setattr(throughput, "_TrainerStep", Fake)
    monkeypatch.setattr(throughput, "contender", lambda name, *_: SimpleNamespace(name=name))
    given = Settings(**{**TINY, "rounds": 3})
    rows = throughput.measure(("mopoe", "multivae_mopoe"), tiny_dataset(60), given)
    assert [row["ratio"] for row in rows if row["model"] == "mopoe"] == [2.0, 2.0, 2.0]
    assert [row["cpu_ratio"] for row in rows if row["model"] == "mopoe"] == [4.0, 4.0, 4.0]
    assert not any("ratio" in row for row in rows if row["model"] in PEERS)
    first, second = turns[:5], turns[5:10]
    assert second == first[::-1]


# Scores


def test_on_balanced_items_accuracy_is_the_mean_over_classes():
    labels = torch.randint(5, (400,), generator=rng()) ** 2 // 4  # uneven
    predicted = torch.where(torch.rand(400, generator=rng(1)) < 0.6, labels, labels * 0)
    at = scores.balanced_items(labels)
    counts = labels[at].bincount()
    counts = counts[counts > 0]
    assert len(counts) == len(labels.unique())
    assert (counts == counts[0]).all()
    truth, said = labels[at], predicted[at]
    each = [metrics.accuracy(said[truth == c], truth[truth == c]) for c in truth.unique()]
    assert metrics.accuracy(said, truth) == pytest.approx(sum(each) / len(each))
    assert at.equal(at.unique())  # in order, none twice


def test_balanced_items_are_few_on_request_and_at_least_one_of_each():
    labels = torch.arange(40) % 4
    assert len(scores.balanced_items(labels, most=10)) == 8
    with pytest.raises(ValueError, match="most: 3"):
        scores.balanced_items(labels, most=3)
    with pytest.raises(ValueError, match="of 0 items"):
        scores.balanced_items(labels[:0])


def test_recorded_images_are_handed_out_by_position():
    images = {"b": torch.arange(6.0)}
    recorded = scores.Recorded(("a", "b"), {("a",): images}, images)
    batch = SimpleNamespace(data={"position": torch.tensor([4, 1])})
    assert recorded.predict(batch, ["a"], ["b"], N=1)["b"].tolist() == [4.0, 1.0]
    drawn = [recorded.decode(recorded.generate_from_prior(n))["b"].tolist() for n in (4, 2)]
    assert drawn == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]


class Noisy:
    """Generates noise, whatever it is given."""

    def translate(self, x, seed):
        count = len(next(iter(x.values())))
        return self.generate(count, seed + len(x))

    def generate(self, n, seed):
        return {name: torch.rand(n, 2, 8, 8, generator=rng(seed)) for name in "abc"}


class Evaluator:
    """Stands in for MultiVae's: the same averages, written independently of ours."""

    error = 0.0

    def __init__(self, model, classifiers, test_dataset, eval_config):
        self.model, self.judges, self.data = model, classifiers, test_dataset
        self.logger = SimpleNamespace(setLevel=lambda level: None)

    def eval(self):
        names, labels = list(self.judges), self.data.labels
        by_size = {1: [], 2: []}
        for subset in (["a"], ["b"], ["c"], ["a", "b"], ["a", "c"], ["b", "c"]):
            targets = [name for name in names if name not in subset]
            images = self.model.predict(self.data, subset, targets, N=1, flatten=True)
            right = [self.judges[m](images[m]).argmax(1) == labels for m in targets]
            classes = [[r[labels == c].float().mean() for c in labels.unique()] for r in right]
            by_size[len(subset)].append(torch.tensor(classes).mean())
        found = {f"mean_coherence_{n}": torch.stack(v).mean() for n, v in by_size.items()}
        images = self.model.decode(self.model.generate_from_prior(len(labels)))
        said = torch.stack([self.judges[m](images[m]).argmax(1) for m in names])
        joint = (said == said[0]).all(0).float().mean()
        return {**found, "joint_coherence_prior": joint + self.error}

    def finish(self):
        pass


@pytest.fixture
def evaluator(monkeypatch):
    fake = SimpleNamespace(
        metrics=SimpleNamespace(
            CoherenceEvaluator=Evaluator,
            CoherenceEvaluatorConfig=lambda **sizes: SimpleNamespace(**sizes),
        ),
        data=SimpleNamespace(
            MultimodalBaseDataset=lambda data, labels: SimpleNamespace(data=data, labels=labels)
        ),
    )
    monkeypatch.setattr(scores, "load", lambda: fake)
    return Evaluator


def test_the_scores_of_one_set_of_samples_agree_or_the_run_ends(evaluator, monkeypatch):
    data = tiny_dataset(95)  # the last classes are rarer
    judges = Judges.for_modalities(data.modalities, width=4).eval()
    rows = scores.agreement(Noisy(), judges, data, seed=0)
    wanted = ["mean_coherence_1", "mean_coherence_2", "joint_coherence_prior"]
    assert [row["score"] for row in rows] == wanted
    assert all(row["difference"] < scores.TOLERANCE for row in rows)
    monkeypatch.setattr(evaluator, "error", 1e-3)
    with pytest.raises(AssertionError, match="joint_coherence_prior: ours"):
        scores.agreement(Noisy(), judges, data, seed=0)


# The run


def test_columns_are_as_wide_as_their_longest_cell():
    text = table.text_table(["model", "x"], [["a", "1"], ["longer", "10.5"]])
    assert text.splitlines() == ["model      x", "------  ----", "a          1", "longer  10.5"]


def test_a_run_writes_its_table_its_results_and_a_manifest(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stage1, "find_spec", lambda name: None)
    monkeypatch.setattr(worker, "find_spec", lambda name: None)
    # in this process: a test has no time for three that each import everything
    monkeypatch.setattr(
        stage1, "job", lambda name, given, folder: {"result": worker.do(name, given), "device": "x"}
    )
    monkeypatch.setattr("benchmarks.contenders.CALIBRATION", 1)
    options = {**TINY, "models": ("concat",)}
    line = []
    for name, value in options.items():
        line += [
            f"--{name.replace('_', '-')}",
            *map(str, value if type(value) is tuple else [value]),
        ]
    folder = stage1.main(line)
    assert folder.parent == tmp_path / "runs" / "bench-stage1"
    results = json.loads((folder / "results.json").read_text())
    (model,) = results["models"]
    assert model["model"] == "concat"
    assert model["peak_memory_mib"] > 0
    assert 0 <= model["scores"]["conditional_coherence"] <= 1
    assert {"commit", "dirty", "versions", "device", "settings", "threads"} <= set(
        results["manifest"]
    )
    assert results["manifest"]["settings"]["batch"] == TINY["batch"]
    assert "multivae" in results["manifest"]["versions"]
    text = (folder / "table.txt").read_text()
    for name in ("judge", "floor", "concat ", "concat bf16-mixed"):
        assert f"\n{name}" in text
    assert "not checked" in text
    assert text in capsys.readouterr().out


def test_a_table_in_the_book_is_that_of_its_results():
    kept = sorted((Path(stage1.__file__).parent.parent / "book/results/bench-stage1").iterdir())
    assert kept
    for folder in kept:
        results = json.loads((folder / "results.json").read_text())
        assert (folder / "table.txt").read_text() == stage1.report(results)
        assert not results["manifest"]["dirty"]


def test_without_multivae_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(stage1, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="make bench-stage1"):
        stage1.main(["--models", "multivae_mopoe"])


def test_a_job_that_fails_ends_the_run_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stage1.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=3))
    with pytest.raises(SystemExit, match="judges ended with status 3"):
        stage1.job("judges", Settings(), tmp_path)


def test_only_pairs_with_a_chosen_model_are_timed():
    jobs = stage1.plan(Settings(models=("concat", "multivae_mopoe")))
    assert jobs == [
        "judges",
        "concat",
        "multivae_mopoe",
        "throughput:mopoe:multivae_mopoe",
        "throughput:concat:multivae_mvtcae",
    ]
    assert settings.MODELS[0] in OURS  # the one whose samples both libraries score
