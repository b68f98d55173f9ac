"""Sentences are read back as what they mention, and nothing else."""

from itertools import combinations

import numpy as np
import pytest

from shala_lite.datasets import birds, sentences
from shala_lite.datasets.birds import VALUES
from shala_lite.vocabulary import words_of


def mention(names, rng):
    return {name: VALUES[name][rng.integers(len(VALUES[name]))] for name in VALUES if name in names}


def test_reading_a_written_sentence_gives_back_what_it_mentions():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 4):
        for names in combinations(VALUES, count):
            for _ in range(12):
                said = mention(names, rng)
                text = sentences.write(said, rng)
                assert sentences.mentioned(text) == said, text
                assert len(words_of(text)) <= sentences.LENGTH, text


def test_reading_survives_the_vocabulary():
    # Punctuation is lost on the way, and generated sentences never had it.
    rng = np.random.default_rng(1)
    texts = sentences.describe(birds.deal(800, rng), rng)
    ids = sentences.VOCABULARY.encode(texts, sentences.LENGTH)
    back = sentences.VOCABULARY.decode(ids)
    assert [sentences.mentioned(t) for t in back] == [sentences.mentioned(t) for t in texts]
    assert [words_of(t) for t in back] == [words_of(t) for t in texts]
    used = {word for text in texts for word in words_of(text)}
    assert used == set(sentences.VOCABULARY.tokens[2:])  # all but padding and <unk>


def test_every_attribute_is_mentioned_equally_often_and_truly():
    count = 6000
    rng = np.random.default_rng(2)
    values = birds.deal(count, rng)
    said = sentences.read_off(sentences.describe(values, rng))
    heard = np.stack([said[name] >= 0 for name in VALUES])
    for name in VALUES:
        given = said[name] >= 0
        assert np.array_equal(said[name][given], values[name][given])
    assert abs(heard.mean(1) - 3 / 8).max() < 4.5 * np.sqrt(0.25 / count)
    assert set(heard.sum(0)) == {2, 3, 4}
    assert abs(np.bincount(heard.sum(0))[2:] / count - 1 / 3).max() < 4.5 * np.sqrt(0.25 / count)


def test_what_is_mentioned_does_not_depend_on_the_value():
    count = 6000
    rng = np.random.default_rng(3)
    values = birds.deal(count, rng)
    said = sentences.read_off(sentences.describe(values, rng))
    for name, known in VALUES.items():
        for other in VALUES:
            rates = [(said[other] >= 0)[values[name] == at].mean() for at in range(len(known))]
            assert np.ptp(rates) < 9 * np.sqrt(0.25 * len(known) / count)


def test_a_bird_has_many_sentences_and_the_same_draw_gives_the_same():
    values = birds.deal(1, np.random.default_rng(4))
    rng = np.random.default_rng(5)
    assert len({sentences.describe(values, rng)[0] for _ in range(100)}) > 80
    first, second = (sentences.describe(values, np.random.default_rng(6)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", {}),
        ("wings wings red the a", {}),
        ("a red bird", {}),
        ("a red", {}),
        ("red wings", {"wing": "red"}),
        ("a small small bird with red", {"size": "small"}),
        ("a bird with a red crown and a crown", {"crown": "red"}),
        ("a bird with a red crown and a blue cap facing left", {"facing": "left"}),
        ("a bird with a red crown and a red cap", {"crown": "red"}),
        ("whose crown is red belly is blue", {"crown": "red", "belly": "blue"}),
        ("A Large Bird, perched!", {"size": "large", "pose": "perched"}),
        ("a bird with a short belly and a green bill", {}),
    ],
)
def test_parts_that_do_not_read_say_nothing(text, said):
    assert sentences.mentioned(text) == said


def test_reading_off_marks_silence():
    said = sentences.read_off(["a bird with a white crown", ""])
    assert said["crown"].tolist() == [VALUES["crown"].index("white"), -1]
    assert all(said[name].tolist() == [-1, -1] for name in VALUES if name != "crown")


@pytest.mark.parametrize(
    ("mentions", "complaint"),
    [
        ({}, "at least one"),
        ({"tail": "red"}, "'tail': 'red', expected the names"),
        ({"bill": "red"}, "'bill': 'red', expected one of"),
    ],
)
def test_what_cannot_be_written_is_named(mentions, complaint):
    with pytest.raises(ValueError, match=complaint):
        sentences.write(mentions, np.random.default_rng(0))


def test_articles_suit_their_words():
    rng = np.random.default_rng(7)
    texts = {sentences.write({"crown": c}, rng) for c in ("orange", "red") for _ in range(30)}
    assert any("an orange" in text for text in texts)
    assert not any("a orange" in text or "an red" in text for text in texts)
