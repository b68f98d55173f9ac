"""Decoders of a text, trained on a stage 1 that stays as it is."""

import pytest
import torch

from shala_lite.distributions import DiagonalGaussian
from shala_lite.modalities import Modality
from shala_lite.text_probes import DECODERS, text_decoder
from shala_lite.vocabulary import Vocabulary

WORD = Modality("word", (4,), "text", Vocabulary((" ", "a", "b", "c"), ""))


def posteriors(count=300):
    """Two words, each in a place of its own in z."""
    which = torch.arange(count) % 2
    mean = torch.stack([2.0 * which - 1, torch.zeros(count)], 1)
    ids = torch.tensor([[1, 1, 2, 2], [3, 2, 3, 2]])[which]
    return DiagonalGaussian(mean, torch.full_like(mean, 0.3)), ids


@pytest.mark.parametrize("kind", DECODERS)
def test_it_reads_what_z_holds_and_the_seed_is_all_that_chance_has(kind):
    posterior, ids = posteriors()
    sizes = dict(width=8, steps=100, seed=1)
    first, second = (text_decoder(kind, WORD, posterior, ids, **sizes) for _ in range(2))
    assert not first.training
    assert (first.write(posterior.mean) == ids).all()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_texts_of_another_number_are_refused():
    posterior, ids = posteriors()
    with pytest.raises(ValueError, match="ids: 299 texts, expected 300"):
        text_decoder("independent", WORD, posterior, ids[1:], width=8, steps=1)
    with pytest.raises(ValueError, match=r"kind: 'loud', expected one of \['autoregressive"):
        text_decoder("loud", WORD, posterior, ids, width=8, steps=1)
