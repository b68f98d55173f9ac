"""Scores of generated texts."""

import pytest
import torch

from shala_lite.agreement import total_variation
from shala_lite.datasets import mst
from shala_lite.text_metrics import offset_shares, token_accuracy, word_match


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
    found, expected = offset_shares(mst.offsets(texts), room, mst.LENGTH)
    assert found.sum().item() == pytest.approx(1)
    assert expected.sum().item() == pytest.approx(1)
    assert total_variation(found, expected) < 0.03
    fixed, _ = offset_shares(torch.zeros(4000, dtype=torch.int64), room, mst.LENGTH)
    assert total_variation(fixed, expected) > 0.5
    with pytest.raises(ValueError, match="beyond their room"):
        offset_shares(room + 1, room, mst.LENGTH)
