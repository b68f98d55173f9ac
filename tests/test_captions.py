"""Scores of pictures and sentences: each against what is known to be right or wrong."""

import pytest
import torch

from shala_lite import captions
from shala_lite.datasets import birds, load_dataset, sentences
from shala_lite.retrieval import Matcher

NAMES = list(birds.VALUES)


class Truth:
    """A judge that knows the pictures of one data set by heart."""

    def __init__(self, data):
        self.data = data

    def read(self, image):
        count = len(image)
        assert image.equal(self.data.observations["image"][:count])
        return {name: self.data.attributes[name][:count] for name in NAMES}


@pytest.fixture(scope="module")
def data():
    return load_dataset("cub", "test", size=120)


@pytest.fixture(scope="module")
def scores(data):
    return scores_of(data, Truth(data))


def scores_of(data, eye):
    matcher = Matcher(data.modalities, widths=[4, 8], text_width=4)
    return captions.CaptionScores(data, matcher, eye, pool=30)


def test_real_pictures_show_what_is_said_and_another_bird_does_not(data, scores):
    image, ids = data.observations.values()
    right = scores.picture(image, ids)
    assert right["attribute_accuracy@colours_said"] == 1
    assert right["attribute_accuracy@all_said"] == 1
    assert 0 <= right["retrieval_accuracy@by_picture"] <= 1
    wrong = scores.picture(image, ids.roll(1, 0))
    assert wrong["attribute_accuracy@colours_said"] < 0.3  # one in eight by chance
    floor = scores.floor(ids, data.attributes)
    assert list(floor) == list(right)
    assert floor["attribute_accuracy@colours_said"] < 0.3
    assert floor["retrieval_accuracy@by_picture"] == 1 / 30


def test_real_sentences_are_true_and_empty_ones_say_nothing(data, scores):
    image, ids = data.observations.values()
    for attributes in (None, data.attributes):
        found = scores.sentence(ids, image, attributes)
        assert found["attribute_accuracy@stated"] == 1
        assert found["sentences_read"] == 1
        assert sentences.FEWEST <= found["attributes_mentioned"] <= sentences.MOST
    found = scores.sentence(torch.zeros_like(ids), image)
    assert found["sentences_read"] == found["attributes_mentioned"] == 0


def test_a_cut_sentence_says_less_and_nothing_else(data, scores):
    ids = data.observations["sentence"]
    before = scores.said(ids)
    for count in (1, 2, 9):
        after = scores.said(scores.cut(ids, count))
        for name in NAMES:
            kept = after[name] >= 0
            assert after[name][kept].equal(before[name][kept])
        told = torch.stack([v >= 0 for v in after.values()]).sum(0)
        most = torch.stack([v >= 0 for v in before.values()]).sum(0).clamp(max=count)
        assert told.equal(most)


def test_a_cut_keeps_no_attribute_more_often_than_others(data, scores):
    ids = data.observations["sentence"]
    before, after = scores.said(ids), scores.said(scores.cut(ids, 1))
    kept = {name: (after[name] >= 0).sum() / (before[name] >= 0).sum() for name in NAMES}
    each = sum((after[name] >= 0).sum() for name in NAMES) / sum(
        (before[name] >= 0).sum() for name in NAMES
    )
    for name, share in kept.items():
        error = (each * (1 - each) / (before[name] >= 0).sum()).sqrt()
        assert abs(share - each) < 4 * error, name


def test_real_pictures_vary_as_the_data_do(data, scores):
    image, ids = data.observations.values()
    assert all(value < 0.25 for value in scores.variety(image, ids, data.attributes).values())


def test_without_attributes_partners_and_words_are_what_is_left(data):
    scores, (image, ids) = scores_of(data, None), data.observations.values()
    assert list(scores.picture(image, ids)) == ["retrieval_accuracy@by_picture"]
    assert list(scores.floor(ids, {})) == ["retrieval_accuracy@by_picture"]
    assert list(scores.sentence(ids, image)) == ["retrieval_accuracy@by_sentence"]
    one = scores.variety(image[:1].expand(5, -1, -1, -1), ids[:5], {})["degrees"]
    assert one == pytest.approx(0, abs=0.2)
    assert scores.variety(image, ids, {})["degrees"] > one
    short = scores.cut(ids, 1)
    assert short[:, :4].equal(ids[:, :4].long())
    assert (short[:, 4:] == 0).all()
