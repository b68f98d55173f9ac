"""Nets of a text: any length, order matters, and a text comes through a latent."""

import pytest
import torch
from torch import nn

from shala_lite.modalities import Modality
from shala_lite.text_nets import TextDecoder, TextEncoder
from shala_lite.vocabulary import Vocabulary

LETTERS = Vocabulary((" ", "a", "b", "c", "d"), "")


def word(length):
    return Modality("word", (length,), "text", LETTERS)


def texts(n, length, seed=0):
    return torch.randint(5, (n, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 3, 4, 8, 13, 32])
def test_texts_of_any_length(length):
    assert TextEncoder(word(length), 7, 6)(texts(5, length)).shape == (5, 7)
    assert TextDecoder(word(length), 3, 6)(torch.randn(5, 3)).shape == (5, length, 5)


def test_the_feature_knows_the_order_of_the_tokens():
    encoder = TextEncoder(word(8), 7, 6).eval()
    x = texts(4, 8)
    assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-3)


def test_a_text_comes_through_encoder_and_decoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(TextEncoder(word(6), 32, 32), TextDecoder(word(6), 32, 32))
    x, optimizer = texts(64, 6), torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(120):
        loss = nn.functional.cross_entropy(net(x).flatten(0, 1), x.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net(x).argmax(-1) == x).float().mean() > 0.97


def test_what_is_no_text_is_refused():
    picture = Modality("m0", (1, 8, 8))
    for net in (TextEncoder, TextDecoder):
        with pytest.raises(ValueError, match="'m0': kind 'image'"):
            net(picture, 4, 4)
        with pytest.raises(ValueError, match="width: 0"):
            net(word(8), 4, 0)
