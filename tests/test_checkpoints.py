"""Checkpoints: whole or not there, of this run or refused; killed at any moment, same end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killable import STEPS
from tiny_models import rng

from shala_lite.checkpoints import load_checkpoint, save_checkpoint

IDENTITY = {"steps": 100, "seed": 0, "ema": None}
CPU = torch.device("cpu")


def state(step):
    weights = {"w": torch.randn(4, 3, generator=rng(step)), "n": torch.tensor(step)}
    return {"step": step, "model": weights, "history": {"steps": [1, step], "seconds": 0.5}}


def assert_equal(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def test_what_is_loaded_is_what_was_saved(tmp_path):
    path = save_checkpoint(tmp_path / "new", IDENTITY, state(7))
    assert path.parent == tmp_path / "new"
    found_path, found = load_checkpoint(tmp_path / "new", IDENTITY, CPU)
    assert found_path == path
    assert_equal(found, state(7))


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_checkpoint_there_is_nothing(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "absent"
    assert load_checkpoint(folder, IDENTITY, CPU) == (None, None)


def test_the_newest_is_loaded_and_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 9, 10, 100):
        save_checkpoint(tmp_path, IDENTITY, state(step))
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
    assert steps == [10, 100]
    assert load_checkpoint(tmp_path, IDENTITY, CPU)[1]["step"] == 100


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "one bit": flip,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_one_is_told_and_the_one_before_it_used(tmp_path, damage):
    before = save_checkpoint(tmp_path, IDENTITY, state(5))
    newest = save_checkpoint(tmp_path, IDENTITY, state(10))
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        path, found = load_checkpoint(tmp_path, IDENTITY, CPU)
    assert path == before
    assert_equal(found, state(5))
    assert load_checkpoint(tmp_path, IDENTITY, CPU)[0] == before  # said once


def test_when_all_are_damaged_there_is_nothing(tmp_path):
    for step in (5, 10):
        save_checkpoint(tmp_path, IDENTITY, state(step)).write_bytes(b"junk")
    with pytest.warns(UserWarning, match="damaged"):
        assert load_checkpoint(tmp_path, IDENTITY, CPU) == (None, None)


def test_a_name_that_is_no_checkpoint_is_left_alone(tmp_path):
    path = save_checkpoint(tmp_path, IDENTITY, state(5))
    notes = tmp_path / "checkpoint-notes.txt"
    notes.write_text("mine")
    assert load_checkpoint(tmp_path, IDENTITY, CPU)[0] == path
    save_checkpoint(tmp_path, IDENTITY, state(6))
    assert notes.read_text() == "mine"


def test_what_a_killed_writer_left_is_not_read_and_goes_with_the_next(tmp_path):
    path = save_checkpoint(tmp_path, IDENTITY, state(5))
    partial = tmp_path / "checkpoint-00000006-0123456789abcdef.partial"
    partial.write_bytes(path.read_bytes()[:100])
    assert load_checkpoint(tmp_path, IDENTITY, CPU)[0] == path
    newest = save_checkpoint(tmp_path, IDENTITY, state(6))
    assert set(tmp_path.iterdir()) == {path, newest}


@pytest.mark.parametrize("key", IDENTITY)
def test_a_checkpoint_of_another_run_is_refused_by_the_setting(tmp_path, key):
    save_checkpoint(tmp_path, IDENTITY, state(5))
    other = IDENTITY | {key: 0.25}
    with pytest.raises(ValueError, match=rf"\({key}: {IDENTITY[key]} there, 0\.25 now\)") as error:
        load_checkpoint(tmp_path, other, CPU)
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.glob("*.pt"))  # refused, not removed


def test_every_setting_that_differs_is_named(tmp_path):
    save_checkpoint(tmp_path, IDENTITY, state(5))
    with pytest.raises(ValueError, match="steps: 100 there, 7 now, seed: 0 there, 1 now"):
        load_checkpoint(tmp_path, {"steps": 7, "seed": 1, "ema": None}, CPU)


# Killed training


class Trainer:
    """Attempts at one training run, each in a process of its own."""

    def __init__(self, server):
        self.server = server

    def start(self, **attempt):
        self.server.stdin.write(json.dumps(attempt) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def ended(self):
        return int(self.server.stdout.readline())

    def run(self, folder, out, **options):
        """An attempt that nobody disturbs; the files that it writes."""
        out.mkdir()
        self.start(folder=folder and str(folder), out=str(out), lease=None, **options)
        assert self.ended() == 0
        return {path.name: path.read_bytes() for path in out.iterdir()}

    def run_and_kill(self, folder, dice, **options):
        """An attempt killed at a random moment after it has written a checkpoint of its own."""
        before = newest(folder)
        pid = self.start(folder=str(folder), out="", lease=dice.randint(2, 4), **options)
        while newest(folder) == before:
            os.kill(pid, 0)  # raises if it is no more
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL


def newest(folder):
    return max((path.name[:19] for path in folder.glob("checkpoint-*.pt")), default="")


@pytest.fixture(scope="module")
def trainer():
    script = Path(__file__).with_name("killable.py")
    command, pipe = [sys.executable, str(script)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        yield Trainer(server)
        server.stdin.close()
    assert server.returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "32-true", "ema": None},
        {"precision": "bf16-mixed", "ema": 0.9},
    ],
    ids=["full precision", "bf16 and moving average"],
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(trainer, tmp_path, options):
    expected = trainer.run(tmp_path / "undisturbed", tmp_path / "expected", **options)
    dice, folder = random.Random(0), tmp_path / "disturbed"
    for _ in range(4):
        trainer.run_and_kill(folder, dice, **options)
    assert "checkpoint-00000004" <= newest(folder) < f"checkpoint-{STEPS:08d}"
    assert trainer.run(folder, tmp_path / "found", **options) == expected
    # checkpoints look on and do not steer; a finished run is found finished
    assert trainer.run(folder, tmp_path / "again", **options) == expected
    without = trainer.run(None, tmp_path / "without", **options)
    assert without["weights.safetensors"] == expected["weights.safetensors"]


def test_settings_that_should_matter_do(trainer, tmp_path):
    """Else the test above could compare files that never differ."""
    weights = set()
    for i, (precision, ema) in enumerate(
        [("32-true", None), ("bf16-mixed", None), ("32-true", 0.9)]
    ):
        files = trainer.run(None, tmp_path / str(i), precision=precision, ema=ema)
        weights.add(files["weights.safetensors"])
    assert len(weights) == 3


def test_with_its_newest_checkpoint_damaged_it_ends_with_the_same_bytes(trainer, tmp_path):
    options = {"precision": "32-true", "ema": 0.9}
    folder, dice = tmp_path / "disturbed", random.Random(1)
    for _ in range(2):
        trainer.run_and_kill(folder, dice, **options)
    last = max(folder.glob("checkpoint-*.pt"))
    last.write_bytes(last.read_bytes()[:-10])
    found = trainer.run(folder, tmp_path / "found", **options)
    assert found == trainer.run(tmp_path / "undisturbed", tmp_path / "expected", **options)


def test_continued_under_other_settings_it_is_refused(trainer, tmp_path):
    folder = tmp_path / "run"
    trainer.run_and_kill(folder, random.Random(2), precision="32-true", ema=None)
    files = trainer.run(folder, tmp_path / "found", precision="bf16-mixed", ema=None)
    assert list(files) == ["refused.txt"]
    assert b"precision: '32-true' there, 'bf16-mixed' now" in files["refused.txt"]
