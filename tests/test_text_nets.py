"""Nets of a text: any length, order matters, and a text comes through a latent."""

import pytest
import torch
from torch import nn

from shala_lite.modalities import Modality
from shala_lite.text_nets import TextDecoder, TextEncoder, chosen
from shala_lite.text_probes import DECODERS
from shala_lite.vocabulary import Vocabulary

LETTERS = Vocabulary((" ", "a", "b", "c", "d"), "")


def word(length):
    return Modality("word", (length,), "text", LETTERS)


def texts(n, length, seed=0):
    return torch.randint(5, (n, length), generator=torch.Generator().manual_seed(seed))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def decoder_of(kind, length, latent_dim=3, width=6):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DECODERS[kind](word(length), latent_dim, width).eval()


@pytest.mark.parametrize("length", [1, 3, 4, 8, 13, 32])
def test_texts_of_any_length(length):
    assert TextEncoder(word(length), 7, 6)(texts(5, length)).shape == (5, 7)
    for kind in DECODERS:
        decoder, z = decoder_of(kind, length), torch.randn(5, 3, generator=rng())
        assert decoder(z, texts(5, length)).shape == (5, length, 5)
        assert decoder.write(z).shape == decoder.write(z, rng()).shape == (5, length)


@pytest.mark.parametrize("kind", DECODERS)
def test_the_probabilities_of_all_texts_add_up_to_one(kind):
    decoder, z = decoder_of(kind, 4), torch.randn(1, 3, generator=rng())
    every = torch.cartesian_prod(*[torch.arange(5)] * 4)
    shares = decoder(z.expand(len(every), -1), every).log_softmax(-1)
    nats = shares.gather(-1, every[..., None]).sum((1, 2))
    assert nats.exp().sum().item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_greedy_text_has_the_likeliest_token_given_what_was_written(kind):
    decoder, z = decoder_of(kind, 9), torch.randn(7, 3, generator=rng())
    written = decoder.write(z)
    assert torch.equal(decoder(z, written).argmax(-1), written)
    assert torch.equal(decoder.write(z), written)


@pytest.mark.parametrize("kind", DECODERS)
def test_drawn_texts_are_as_frequent_as_their_probability(kind):
    decoder, z = decoder_of(kind, 2), torch.randn(1, 3, generator=rng())
    every = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    shares = decoder(z.expand(25, -1), every).log_softmax(-1)
    expected = shares.gather(-1, every[..., None]).sum((1, 2)).exp()
    drawn = decoder.write(z.expand(20_000, -1), rng(1))
    found = torch.bincount(drawn[:, 0] * 5 + drawn[:, 1], minlength=25) / 20_000
    torch.testing.assert_close(found, expected, atol=0.012, rtol=0)


def test_an_autoregressive_position_knows_the_tokens_within_reach_before_it_and_no_other():
    length = 20
    decoder, z, ids = decoder_of("autoregressive", length), torch.randn(6, 3), texts(6, length)
    assert decoder.reach == 15
    logits = decoder(z, ids)
    for changed in range(length):
        other = ids.clone()
        other[:, changed] = (other[:, changed] + 1) % 5
        gap = (decoder(z, other) - logits).abs().amax((0, 2))
        told = torch.arange(length)
        assert torch.equal(gap > 0, (changed < told) & (told <= changed + decoder.reach))


def test_independent_positions_read_no_token():
    decoder, z = decoder_of("independent", 6), torch.randn(4, 3)
    assert torch.equal(decoder(z, texts(4, 6)), decoder(z, texts(4, 6, 1)))


def test_tokens_are_chosen_greedily_or_as_often_as_their_probability():
    logits = torch.randn(1, 5, 4, generator=rng(2))
    assert torch.equal(chosen(logits), logits.argmax(-1))
    drawn = chosen(logits.expand(20_000, 5, 4), rng(3))
    shares = torch.stack([(drawn == token).float().mean(0) for token in range(4)], -1)
    torch.testing.assert_close(shares, logits.softmax(-1)[0], atol=0.015, rtol=0)


def test_a_nucleus_has_the_likeliest_tokens_and_keeps_their_proportions():
    chances = torch.tensor([[0.05, 0.5, 0.15, 0.3], [0.94, 0.03, 0.02, 0.01]])
    drawn = chosen(chances.log().expand(20_000, 2, 4), rng(4), top_p=0.9)
    shares = torch.stack([(drawn == token).float().mean(0) for token in range(4)], -1)
    kept = torch.tensor([[0.0, 0.5, 0.15, 0.3], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(shares, kept / kept.sum(-1, keepdim=True), atol=0.015, rtol=0)
    assert (shares[kept == 0] == 0).all()


@pytest.mark.parametrize("top_p", [0.0, -0.5, 1.5, float("nan")])
def test_a_nucleus_without_or_beyond_all_probability_is_refused(top_p):
    with pytest.raises(ValueError, match=f"top_p: {top_p}, expected above 0 and at most 1"):
        chosen(torch.zeros(2, 4), rng(), top_p)


def test_a_smaller_nucleus_is_nearer_to_greedy():
    decoder, z = decoder_of("autoregressive", 9), torch.randn(400, 3, generator=rng())
    assert torch.equal(decoder.write(z, rng(), 1e-6), decoder.write(z))
    assert torch.equal(decoder.write(z, rng(), 1.0), decoder.write(z, rng()))
    same = [(decoder.write(z, rng(), p) == decoder.write(z)).float().mean() for p in (0.3, 1.0)]
    assert same[0] > same[1]


def test_a_text_of_words_ends_at_its_first_padding_and_blanks_between_letters_stay():
    letters, z = decoder_of("autoregressive", 9), torch.randn(200, 3, generator=rng())
    vocabulary = Vocabulary(("<pad>", *LETTERS.tokens[1:]))
    words = TextDecoder(Modality("words", (9,), "text", vocabulary), 3, 6).eval()
    words.load_state_dict(letters.state_dict())
    spelt = letters.write(z, rng())
    over = (spelt == 0).cumsum(1) > 0
    assert (spelt[over] != 0).any()
    assert torch.equal(words.write(z, rng()), spelt.masked_fill(over, 0))


def test_words_between_two_words_are_one_of_them_only_if_letters_hear_each_other():
    two = torch.tensor([[1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2]])
    z = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    mixed = {}
    for kind in DECODERS:
        decoder = decoder_of(kind, 6, width=16).train()
        optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
        for step in range(150):
            pick = torch.randint(2, (64,), generator=rng(step))
            near = z[pick] + 0.8 * torch.randn(64, 3, generator=rng(step + 1000))
            loss = nn.functional.cross_entropy(
                decoder(near, two[pick]).flatten(0, 1), two[pick].flatten()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        drawn = decoder.eval().write(torch.zeros(500, 3), rng())
        mixed[kind] = (drawn != drawn[:, :1]).any(1).float().mean().item()
    assert mixed["autoregressive"] < 0.05 < 0.5 < mixed["independent"]


def test_what_was_written_decides_what_is_asked_of_z():
    """A text is a part, drawn, and the colour that z says of that part; z tells all of them."""
    parts, colours = 4, 5

    def items(count, seed):
        of = torch.randint(colours, (count, parts), generator=rng(seed))
        part = torch.randint(parts, (count,), generator=rng(seed + 1))
        colour = of[torch.arange(count), part]
        z = nn.functional.one_hot(of, colours).flatten(1).float()
        return z, torch.stack([part, torch.zeros_like(part), colour], 1)

    right = {}
    for kind in DECODERS:
        decoder = decoder_of(kind, 3, latent_dim=parts * colours, width=16).train()
        optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
        for step in range(200):
            z, ids = items(128, 2 * step)
            loss = nn.functional.cross_entropy(decoder(z, ids).flatten(0, 1), ids.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        z, ids = items(500, 10_000)
        right[kind] = (decoder.eval()(z, ids)[:, 2].argmax(-1) == ids[:, 2]).float().mean().item()
    assert right["autoregressive"] > 0.95
    assert right["independent"] < 0.6


def test_the_feature_knows_the_order_of_the_tokens():
    encoder = TextEncoder(word(8), 7, 6).eval()
    x = texts(4, 8)
    assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-3)


def test_a_text_comes_through_encoder_and_decoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = TextEncoder(word(6), 32, 32), TextDecoder(word(6), 32, 32)
    x, nets = texts(64, 6), nn.ModuleList([encoder, decoder])
    optimizer = torch.optim.Adam(nets.parameters(), lr=1e-2)
    for _ in range(120):
        logits = decoder(encoder(x), x)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), x.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (decoder.eval().write(encoder.eval()(x)) == x).float().mean() > 0.97


def test_what_is_no_text_is_refused():
    picture = Modality("m0", (1, 8, 8))
    for net in (TextEncoder, TextDecoder):
        with pytest.raises(ValueError, match="'m0': kind 'image'"):
            net(picture, 4, 4)
        with pytest.raises(ValueError, match="width: 0"):
            net(word(8), 4, 0)
