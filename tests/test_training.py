"""The training loop: what step k does depends on the seed and on k, and on nothing else."""

import math
import random

import numpy as np
import pytest
import torch
from tiny_models import rng
from torch import nn

from shala_lite import stages
from shala_lite.stages import steps_within
from shala_lite.training import DivergedError, fit, learning_rate_at

OPTIONS = dict(batch_size=8, accelerator="cpu", precision="32-true", progress=False)


class Rows:
    """Data of n rows of 4 numbers; notes the indices of every batch."""

    def __init__(self, n=24):
        self.x = torch.randn(n, 4, generator=rng(7))
        self.seen = []

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        self.seen.append(indices.clone())
        return {"x": self.x[indices]}


class Notes(nn.Module):
    """A small denoising network that notes what its loss is called with.

    Args:
        spoil: {step: what is added to the loss at that step}.
    """

    def __init__(self, spoil=None):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.net = nn.Sequential(
                nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 4)
            )
        self.spoil = spoil or {}
        self.steps, self.noises, self.weights, self.losses, self.half = [], [], [], [], []

    def state(self):
        return [v.clone() for v in self.state_dict().values() if v.is_floating_point()]

    def loss(self, x, *, generator):
        step = len(self.steps)
        assert self.training
        noise = torch.randn(x.shape, generator=generator)
        self.steps.append(step)
        self.noises.append(noise)
        self.weights.append(self.state())
        out = self.net(x + 0.1 * noise)
        self.half.append(out.dtype == torch.bfloat16)
        error = (out.float() - x).square().mean()
        loss = error + self.spoil.get(step, lambda model: 0.0)(self)
        self.losses.append(error.item())
        return {"loss": loss, "error": error, "part/of": 2 * error}


def train(steps=30, n=24, spoil=None, **options):
    model, data = Notes(spoil), Rows(n)
    history = fit(model, data, steps=steps, **(OPTIONS | options))
    return model, data, history


def assert_equal(found, expected):
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


# What a step is made of


def test_every_item_is_seen_once_in_every_epoch():
    _, data, _ = train(steps=9)
    for epoch in range(3):
        seen = torch.cat(data.seen[3 * epoch : 3 * epoch + 3])
        assert sorted(seen.tolist()) == list(range(24))
    assert not torch.equal(torch.cat(data.seen[:3]), torch.cat(data.seen[3:6]))


def test_without_a_whole_number_of_batches_no_item_is_seen_twice_in_an_epoch():
    """And the ones left out differ from epoch to epoch."""
    _, data, _ = train(steps=150, n=29)
    left_out = set()
    for epoch in range(50):
        seen = torch.cat(data.seen[3 * epoch : 3 * epoch + 3]).tolist()
        assert len(set(seen)) == 24
        left_out |= set(range(29)) - set(seen)
    assert left_out == set(range(29))


def test_seeds_change_the_order_and_the_noise_and_nothing_else_does():
    model, data, history = train(seed=1)
    same_model, same_data, same_history = train(seed=1)
    assert_equal(same_data.seen, data.seen)
    assert_equal(same_model.noises, model.noises)
    assert_equal(same_model.state(), model.state())
    assert same_history.terms == history.terms
    other_model, other_data, _ = train(seed=2)
    assert not torch.equal(torch.stack(other_data.seen), torch.stack(data.seen))
    assert not any(torch.equal(a, b) for a, b in zip(other_model.noises, model.noises))


def test_no_two_steps_share_their_noise():
    model, _, _ = train()
    noises = torch.stack(model.noises).flatten(1)
    distances = torch.cdist(noises, noises) + 10 * torch.eye(30)
    assert distances.min() > 1


def test_noise_and_order_do_not_depend_on_the_length_of_the_run():
    short, short_data, _ = train(steps=10)
    long, long_data, _ = train(steps=30)
    assert_equal(short.noises, long.noises[:10])
    assert_equal(short_data.seen, long_data.seen[:10])


def test_no_global_random_state_is_touched():
    def draw():  # what comes next, without taking it
        states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        drawn = torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
        return drawn

    before = draw()
    train(ema=0.9, precision="bf16-mixed")
    assert draw() == before


def test_it_is_adam_with_clipped_gradients_written_by_hand():
    model, data, _ = train(steps=20, learning_rate=0.01, weight_decay=0.1, clip=0.05)
    by_hand = Notes().train()
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01, weight_decay=0.1)
    clipped = 0
    for step in range(20):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, 20, 0.01)
        out = by_hand.net(data.x[data.seen[step]] + 0.1 * model.noises[step])
        loss = (out - data.x[data.seen[step]]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        clipped += nn.utils.clip_grad_norm_(by_hand.parameters(), 0.05) > 0.05
        optimizer.step()
    assert clipped > 10
    for found, expected in zip(model.state(), by_hand.state()):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_training_lowers_the_loss_and_leaves_evaluation_mode():
    model, _, history = train(steps=200, learning_rate=0.02)
    assert history.terms["loss"][-1] < history.terms["loss"][0] / 3
    assert not model.training


def test_precision_holds_inside_the_loss():
    assert not any(train(steps=2)[0].half)
    assert not any(train(steps=2, precision=None)[0].half)  # on a CPU
    model = train(steps=2, precision="bf16-mixed")[0]
    assert all(model.half)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("progress", [False, True])
def test_it_shows_its_progress_and_nothing_else(capfd, progress):
    train(steps=3, progress=progress, precision="bf16-mixed", label="stage 9")
    out, err = capfd.readouterr()
    assert out == ""
    assert ("stage 9" in err) == progress
    assert "bfloat16" not in err
    assert progress or err == ""


# The learning rate


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 100, 1001])
def test_the_rate_rises_to_its_peak_once_and_falls_towards_zero(steps):
    rates = [learning_rate_at(step, steps, 0.3) for step in range(steps)]
    top = max(range(steps), key=rates.__getitem__)
    assert rates[top] == pytest.approx(0.3)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
    assert top <= 0.1 * steps
    if steps > 1:
        assert learning_rate_at(steps, steps, 0.3) == pytest.approx(0, abs=1e-12)


def test_the_rate_is_linear_then_half_a_cosine():
    for step in range(10):
        assert learning_rate_at(step, 100, 2.0) == pytest.approx(2 * (step + 1) / 10)
    for share in (0.0, 0.25, 0.5, 0.75):
        expected = 1 + math.cos(math.pi * share)
        assert learning_rate_at(10 + round(90 * share), 100, 2.0) == pytest.approx(
            expected, abs=0.02
        )


# The moving average


def test_the_average_is_its_recursion_over_every_step_the_last_included():
    plain, _, _ = train(steps=25)
    averaged, _, _ = train(steps=25, ema=0.8)
    assert_equal(averaged.weights[-1], plain.weights[-1])  # it looks on, and does not steer
    states = [*plain.weights, plain.state()]  # before step 0, ..., after the last
    expected = states[0]
    for step, state in enumerate(states[1:]):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = [decay * a + (1 - decay) * b for a, b in zip(expected, state)]
    for found, by_hand in zip(averaged.state(), expected):
        torch.testing.assert_close(found, by_hand)
    lagging = any(torch.allclose(a, b) for a, b in zip(averaged.state(), plain.state()))
    assert not lagging


def test_an_average_that_forgets_at_once_is_the_weights():
    plain, _, _ = train(steps=5)
    forgetful, _, _ = train(steps=5, ema=1e-9)
    for found, expected in zip(forgetful.state(), plain.state()):
        torch.testing.assert_close(found, expected)


# The history


def test_the_history_is_the_mean_of_the_steps_since_the_entry_before():
    model, _, history = train(steps=400, batch_size=4, n=4)
    assert history.steps == list(range(2, 401, 2))
    assert list(history.terms) == ["loss", "error", "part/of"]
    expected = torch.tensor(model.losses).view(200, 2).mean(1)
    torch.testing.assert_close(torch.tensor(history.terms["error"]), expected)
    torch.testing.assert_close(torch.tensor(history.terms["part/of"]), 2 * expected)
    assert history.seconds > 0


def test_a_short_run_has_an_entry_for_every_step_with_its_last():
    _, _, history = train(steps=7)
    assert history.steps == [1, 2, 3, 4, 5, 6, 7]


# Losses that are no numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_step_terms_and_checkpoint(tmp_path, bad):
    with pytest.raises(DivergedError) as error:
        train(spoil={17: lambda model: bad}, folder=tmp_path, checkpoint_seconds=0)
    message = str(error.value)
    assert f"at step 17: {{'loss': {bad}, 'error': " in message
    saved = sorted(tmp_path.glob("checkpoint-*.pt"))
    assert [path.name[:19] for path in saved] == ["checkpoint-00000016", "checkpoint-00000017"]
    assert f"last good checkpoint: {saved[-1]}" in message


def test_the_step_is_right_even_where_it_is_noticed_later(tmp_path):
    """Of 1000 steps, every fifth is looked at."""
    with pytest.raises(DivergedError, match=r"at step 121: .*checkpoint-00000120"):
        train(
            steps=1000,
            spoil={121: lambda model: math.nan},
            folder=tmp_path,
            checkpoint_seconds=0,
        )


def test_checkpoints_wait_for_each_other_and_the_last_for_nothing(tmp_path):
    train(folder=tmp_path, checkpoint_seconds=math.inf)
    assert [path.name[:19] for path in tmp_path.iterdir()] == ["checkpoint-00000030"]


def test_the_history_counts_every_item_seen():
    _, _, history = train(steps=7)
    assert history.items == 7 * 8


def test_without_checkpoints_the_error_says_so():
    with pytest.raises(DivergedError, match=r"at step 3: .*no checkpoint was kept"):
        train(spoil={3: lambda model: math.nan})


def finite_with_nan_gradient(model):
    """Zero, but the derivative of its root there is infinite, times zero."""
    return (0 * model.net[0].weight.square()).sum().sqrt()


@pytest.mark.parametrize("step", [9, 14, 29])
def test_a_gradient_that_is_no_number_leaves_no_broken_checkpoint(tmp_path, step):
    """The loss is finite, the weights after it are not: on the way, and at the end."""
    with pytest.raises(DivergedError, match=f"after step {step}: "):
        train(spoil={step: finite_with_nan_gradient}, folder=tmp_path, checkpoint_seconds=0)
    for path in tmp_path.glob("checkpoint-*.pt"):
        state = torch.load(path, weights_only=True)
        assert state["step"] <= step
        assert all(v.isfinite().all() for v in state["model"].values())


def test_after_divergence_the_run_goes_on_from_the_last_good_checkpoint(tmp_path):
    """Once the cause is gone, the end is as if it had never been."""
    with pytest.raises(DivergedError):
        train(spoil={17: lambda model: math.nan}, folder=tmp_path, checkpoint_seconds=0)
    resumed, _, history = train(folder=tmp_path, checkpoint_seconds=0)
    assert len(resumed.steps) == 13  # the last good checkpoint is of step 17
    plain, _, expected = train(checkpoint_seconds=0)
    assert_equal(resumed.state(), plain.state())
    assert history.terms == expected.terms


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: 0, expected at least 1"),
        ({"batch_size": 25}, "batch_size: 25, expected 1 to 24"),
        ({"batch_size": 0}, "batch_size: 0, expected 1 to 24"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds: -1.0, expected at least 0"),
        ({"ema": 1.0}, "ema: 1.0, expected"),
        ({"ema": -0.5}, "ema: -0.5, expected"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


# Budgets of time


def test_the_steps_of_a_budget_are_measured_once_and_leave_the_model_alone(tmp_path):
    model, data = Notes(), Rows()
    before = model.state()
    budget = {"seconds": 5.0, "batch": 8, "rate": 1e-3}
    steps = steps_within(model, data, budget, tmp_path)
    assert all(torch.equal(*pair) for pair in zip(model.state(), before))
    assert steps > 10  # a step of this model takes far less than half a second
    # a run that goes on finds its number, whatever the machine does by then
    assert steps_within(model, data, {**budget, "seconds": 1e6}, tmp_path) == steps
    assert int((tmp_path / "steps.json").read_text()) == steps


def test_more_time_is_more_steps(tmp_path):
    counts = []
    for seconds in (2.0, 200.0):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        budget = {"seconds": seconds, "batch": 8, "rate": 1e-3}
        counts.append(steps_within(Notes(), Rows(), budget, folder))
    # a hundred times the time; the machine has its moods
    assert 10 * counts[0] < counts[1] < 1000 * counts[0]


@pytest.mark.parametrize("overhead", [0.0, 3.0])
def test_what_a_training_takes_once_is_not_a_step(tmp_path, monkeypatch, overhead):
    """Recording a step on a GPU takes as long as many steps, and a budget may be short."""
    now, asked = [0.0], []

    def fit(model, data, *, steps, **options):
        asked.append(steps)
        now[0] += overhead + 0.01 * steps

    monkeypatch.setattr(stages, "fit", fit)
    monkeypatch.setattr(stages, "_seconds", lambda: now[0])
    budget = {"seconds": 50.0, "batch": 8, "rate": 1e-3}
    assert steps_within(Notes(), Rows(), budget, tmp_path) == 5000
    # the trial that decides is long enough to be told from a clock's noise
    assert 0.01 * (asked[-1] - asked[-2]) >= 0.01 * budget["seconds"]


def test_a_folder_of_another_model_or_other_data_is_not_continued(tmp_path):
    """Though every shape agrees, and the steps are done: its weights are not what was asked for."""
    for number, change in enumerate(("config", "fingerprint")):
        folder, of = tmp_path / str(number), {"config": {"beta": 1.0}, "fingerprint": "a"}
        for value in (of, of | {change: "another"}):
            model, data = Notes(), Rows()
            model.config, data.fingerprint = value["config"], value["fingerprint"]
            if value is of:
                fit(model, data, steps=4, seed=0, learning_rate=1e-2, folder=folder, **OPTIONS)
        with pytest.raises(ValueError, match="another run"):
            fit(model, data, steps=4, seed=0, learning_rate=1e-2, folder=folder, **OPTIONS)
