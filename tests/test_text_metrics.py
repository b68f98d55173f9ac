"""Scores of generated texts."""

import pytest
import torch

from shala_lite.datasets import mst
from shala_lite.text_metrics import offset_distance, token_accuracy, word_match


def test_a_match_ignores_blanks_around_a_text_and_nothing_else():
    assert word_match(["  one", "two ", "tree"], ["one", " two", "three"]) == pytest.approx(2 / 3)
    assert word_match(["o ne"], ["one"]) == 0
    with pytest.raises(ValueError, match="texts, expected: 1, 2"):
        word_match(["one"], ["one", "two"])


def test_tokens_count_where_there_is_one_to_find():
    expected = torch.tensor([[0, 3, 4, 0], [5, 0, 0, 0]])
    ids = torch.tensor([[9, 3, 1, 0], [5, 9, 9, 9]])
    assert token_accuracy(ids, expected) == pytest.approx(2 / 3)
    assert token_accuracy(expected, expected) == 1
    with pytest.raises(ValueError, match="padding alone"):
        token_accuracy(ids, torch.zeros_like(ids))
    with pytest.raises(ValueError, match=r"ids: \(1, 4\), expected \(2, 4\)"):
        token_accuracy(ids[:1], expected)


def test_offsets_of_the_data_are_spread_as_expected_and_fixed_ones_are_not():
    data = mst.embedded("train", 4000, 0)
    texts = mst.LETTERS.decode(data.observations["word"])
    room = torch.tensor([mst.LENGTH - len(text.strip()) for text in texts])
    assert offset_distance(mst.offsets(texts), room, data.labels) < 0.08
    assert offset_distance(torch.zeros_like(room), room, data.labels) > 0.7
    # with room for one more, two places: always the first is half of all too often there
    one, kinds = torch.ones(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64)
    assert offset_distance(one - 1, one, kinds) == pytest.approx(0.5)
    assert offset_distance(torch.arange(10) % 2, one, kinds) == pytest.approx(0.0)
    assert offset_distance(mst.offsets([]), room[:0], kinds[:0]) == 1
    with pytest.raises(ValueError, match="beyond their room"):
        offset_distance(room + 1, room, data.labels)
    with pytest.raises(ValueError, match=r"kinds have shapes .* expected one shape"):
        offset_distance(room, room, kinds)


def test_one_place_for_each_kind_is_not_spread_though_all_places_are_used():
    kinds, room = torch.arange(1000) % 4, torch.full((1000,), 3)
    assert offset_distance(kinds, room, kinds) == pytest.approx(0.75)
    assert offset_distance(kinds, room, torch.zeros_like(kinds)) == pytest.approx(0.0)
