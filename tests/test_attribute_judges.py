"""Judges of attributes, and what is counted with them."""

import pytest
import torch

from shala_lite.attribute_judges import (
    AttributeData,
    AttributeJudge,
    agreement,
    commonest,
    left_open,
    mentions,
    statements,
)
from shala_lite.datasets import birds, load_dataset, sentences
from shala_lite.training import fit

CLASSES = {name: len(values) for name, values in birds.VALUES.items()}


@pytest.fixture(scope="module")
def train():
    return load_dataset("cub", "train", size=300)


def judge_of(train, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return AttributeJudge(train.modalities[0], CLASSES, **options)


def test_a_batch_has_the_attributes_in_the_order_asked_for(train):
    data = AttributeData(train, "image", ["pose", "belly"])
    batch = data.batch(torch.tensor([3, 5]))
    assert len(data) == 300
    assert batch["x"].shape == (2, 3, 64, 64)
    assert batch["x"].max() <= 1
    expected = [[int(train.attributes[n][i]) for n in ("pose", "belly")] for i in (3, 5)]
    assert batch["values"].tolist() == expected
    with pytest.raises(ValueError, match=r"names: \['tail'\] unknown"):
        AttributeData(train, "image", ["tail"])


def test_each_attribute_has_as_many_logits_as_values(train):
    judge, x = judge_of(train, width=4), train.batch(torch.arange(5))["x"]["image"]
    assert {name: logits.shape for name, logits in judge(x).items()} == {
        name: (5, count) for name, count in CLASSES.items()
    }
    with pytest.raises(ValueError, match="expected numbers of at least 2"):
        AttributeJudge(train.modalities[0], {})


def test_it_learns_to_read_a_colour_off_unseen_pictures(train):
    judge, data = judge_of(train, width=8), AttributeData(train, "image", CLASSES)
    options = dict(batch_size=50, learning_rate=4e-3, seed=0, progress=False)
    fit(judge, data, steps=120, **options)
    test = load_dataset("cub", "test", size=200)
    shown = judge.read(test.observations["image"])
    # Chance is one in eight.
    assert (shown["belly"] == test.attributes["belly"]).float().mean() > 0.6
    assert (shown["pose"] == test.attributes["pose"]).float().mean() > 0.6


def test_reading_looks_at_each_picture_alone_and_leaves_the_mode(train):
    judge, x = judge_of(train, width=4), train.observations["image"][:7]
    judge.train()
    whole = judge.read(x)
    assert judge.training
    one = judge.read(x[2:3])
    assert all(int(whole[name][2]) == int(one[name][0]) for name in CLASSES)
    floats = judge.read(x.float() / 255)
    assert all(floats[name].equal(whole[name]) for name in CLASSES)


def test_statements_are_the_mentions_of_the_data_set(train):
    said = statements(train.modalities[1], train.observations["sentence"])
    for name in CLASSES:
        told = train.attributes[f"mentioned_{name}"] == 1
        assert said[name][told].equal(train.attributes[name][told])
        assert (said[name][~told] == -1).all()
    count = mentions(said)
    assert (int(count.min()), int(count.max())) == (sentences.FEWEST, sentences.MOST)
    with pytest.raises(ValueError, match="no vocabulary"):
        statements(train.modalities[0], train.observations["sentence"])


def test_only_what_is_said_counts():
    said = {"a": torch.tensor([0, 1, -1, 2]), "b": torch.tensor([-1, -1, 1, 0])}
    shown = {"a": torch.tensor([0, 0, 0, 2]), "b": torch.tensor([0, 0, 1, 1])}
    assert agreement(said, shown) == (3 / 5, 5)
    assert agreement(said, shown, ["a"]) == (2 / 3, 3)
    silent = {"a": torch.full((4,), -1)}
    assert agreement(silent, shown) == (0, 0)
    with pytest.raises(ValueError, match="'b' missing"):
        agreement(said, {"a": shown["a"]})


def test_the_floor_guesses_the_commonest_value():
    said = {"a": torch.tensor([0, 1, -1, 1])}
    assert commonest(said, {"a": torch.tensor([1, 1, 0])}).share == 2 / 3
    assert commonest(said, {"a": torch.tensor([0, 1, 0])}).share == 1 / 3


def test_what_is_left_open_is_compared_where_a_sentence_is_silent():
    said = {"a": torch.tensor([-1, -1, 0, 1]), "b": torch.tensor([0, 0, 0, 0])}
    known = {"a": torch.tensor([0, 1, 2, 3]), "b": torch.tensor([0, 0, 0, 1])}
    same = {"a": torch.tensor([2, 2, 0, 1]), "b": torch.tensor([0, 0, 0, 0])}
    assert left_open(said, same, known) == {"a": pytest.approx(0.75)}
    varied = {"a": torch.tensor([2, 0, 3, 3]), "b": torch.tensor([0, 0, 0, 0])}
    assert left_open(said, varied, known) == {"a": pytest.approx(0.5)}
