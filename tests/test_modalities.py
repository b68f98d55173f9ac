import dataclasses
import json

import pytest

from shala_lite.modalities import Modality
from shala_lite.vocabulary import Vocabulary

WORDS = Vocabulary((" ", "a", "b"), "")


def test_a_modality_is_a_value():
    assert Modality("m0", [3, 28, 28]) == Modality("m0", (3, 28, 28))
    assert len({Modality("m0", [3, 28, 28]), Modality("m0", (3, 28, 28))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Modality("m0", (3, 28, 28)).name = "m1"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("", (3, 28, 28)), "non-empty"),
        (("m0", ()), "positive integers"),
        (("m0", (3, 0, 28)), "positive integers"),
        (("m0", (3, 28.0, 28)), "positive integers"),
        (("m0", (28, 28)), "channels, height, width"),
        (("m0", (3, 28, 28), "smell"), "one of image, text.*'smell'"),
        (("word", (3, 8), "text", WORDS), "length"),
        (("word", (8,), "text"), "vocabulary of 'word': expected one for a text"),
        (("m0", (3, 28, 28), "image", WORDS), "None for an image"),
    ],
)
def test_what_is_wrong_is_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Modality(*arguments)


@pytest.mark.parametrize(
    "modality", [Modality("m0", (3, 28, 28)), Modality("word", (8,), "text", WORDS)]
)
def test_a_modality_survives_a_json_file(modality):
    config = json.loads(json.dumps(dataclasses.asdict(modality)))
    assert Modality.from_config(config) == modality
