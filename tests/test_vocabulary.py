"""Strings to token ids and back."""

import pytest
import torch

from shala_lite.datasets import mst, sentences
from shala_lite.vocabulary import UNKNOWN, Vocabulary, words_of

WORDS = Vocabulary(("<pad>", UNKNOWN, "a", "red", "bird"))
LETTERS = Vocabulary((" ", *"abcdefghijklmnopqrstuvwxyz"), "")


def test_encoding_and_decoding_is_the_identity_on_the_vocabulary():
    texts = ["a red bird", "bird", "red red a bird"]
    ids = WORDS.encode(texts, 4)
    assert ids.dtype == torch.int16
    assert ids.tolist() == [[2, 3, 4, 0], [4, 0, 0, 0], [3, 3, 2, 4]]
    assert WORDS.decode(ids) == texts


def test_letters_keep_their_place():
    texts = ["  three", "one", "seven   "]
    ids = LETTERS.encode(texts, 8)
    assert LETTERS.decode(ids) == ["  three", "one", "seven"]
    assert ids[0, :3].tolist() == [0, 0, 20]


@pytest.mark.parametrize("vocabulary", [WORDS, LETTERS, mst.LETTERS, sentences.VOCABULARY], ids=len)
def test_every_token_is_found_again(vocabulary):
    ids = vocabulary.encode(vocabulary.tokens[1:], 1)[:, 0]
    assert ids.tolist() == list(range(1, len(vocabulary)))
    assert tuple(vocabulary.decode(ids[:, None])) == vocabulary.tokens[1:]


def test_unknown_words_become_the_unknown_token():
    assert WORDS.decode(WORDS.encode(["a blue bird"], 3)) == ["a <unk> bird"]
    assert WORDS.encode(["a <unk> bird"], 3).tolist() == [[2, 1, 4]]
    with pytest.raises(ValueError, match=r"texts\[1\]: '3' in 'b3' is no token"):
        LETTERS.encode(["b", "b3"], 4)


def test_what_is_too_long_is_cut_with_a_warning_that_counts():
    with pytest.warns(UserWarning, match="2 of 3 texts cut to 2 tokens"):
        ids = WORDS.encode(["a red bird", "red", "red bird bird"], 2)
    assert WORDS.decode(ids) == ["a red", "red", "red bird"]


def test_a_vocabulary_of_texts_has_the_frequent_words_first():
    texts = ["The bird, a red one.", "a Red bird", "a well-fed bird"]
    assert Vocabulary.of(texts).tokens[2:] == ("a", "bird", "red", "one", "the", "well-fed")
    assert Vocabulary.of(texts, least=2).tokens == ("<pad>", UNKNOWN, "a", "bird", "red")
    with pytest.raises(ValueError, match="none of 6 words occurs 4 times"):
        Vocabulary.of(texts, least=4)
    for nothing in ([], ["...", ""]):
        with pytest.raises(ValueError, match="there is no word in them"):
            Vocabulary.of(nothing)


def test_words_are_lower_case_and_without_punctuation():
    assert words_of("It's A blue-grey bird!  (really)") == [
        "it's",
        "a",
        "blue-grey",
        "bird",
        "really",
    ]


def test_letters_of_any_alphabet_make_words():
    assert words_of("A naïve ÉTUDE: 大きな 鳥, vogel_1") == [
        *("a", "naïve", "étude", "大きな", "鳥", "vogel", "1"),
    ]
    assert words_of("e\N{COMBINING ACUTE ACCENT}tude") == words_of("étude") == ["étude"]
    assert words_of("हिन्दी İzmir") == ["हिन्दी", "i\N{COMBINING DOT ABOVE}zmir"]
    assert WORDS.decode(WORDS.encode(["a rosé bird 鳥"], 5)) == ["a <unk> bird <unk>"]
    assert Vocabulary.of(["a <unk> <pad> bird"]).tokens == ("<pad>", UNKNOWN, "a", "bird")
    assert Vocabulary.of(["ein schöner Vogel"]).tokens[2:] == ("ein", "schöner", "vogel")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((("a",),), "tokens: 1, expected at least 2"),
        ((("a", "b", "a"),), "'a'"),
        ((("a", ""),), "distinct"),
        ((("a", "b"), "-"), "separator: '-'"),
        ((("<pad>", "Red", "red crown", "wren"),), r"\['Red', 'red crown'\] .* single words"),
        (((" ", "ab", "c"), ""), r"\['ab'\] .* single letters"),
    ],
)
def test_what_is_wrong_is_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Vocabulary(*arguments)
