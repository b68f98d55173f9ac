r"""Encoder and decoder of a text: convolutions along its tokens.

    log p(y | z) = sum_l log p(y_l | z, y_1, ..., y_{l-1})                              [nats]

The decoder is autoregressive: a position knows what was written before it. Otherwise z would have
to carry whatever the positions must agree on, and where it lies between two texts, what comes out
would be neither (`text_probes` shows it).

What was written decides what is asked of z: after `a red` it is which part is red. So z does not
only add to what the words before say, it scales it, channel by channel. A decoder that mixes both
but once can say what z holds for a position, and hardly what z holds for a phrase.

Sources: causal convolutions told of z in every layer as in WaveNet, van den Oord et al. 2016; scale
and shift, FiLM, Perez et al. 2018; nucleus sampling, Holtzman et al. 2020.
"""

import math

import torch
from torch import Tensor, nn

from shala_lite.modalities import Modality

SHORTEST = 4  # positions at which a text is read as a whole
DILATIONS = (1, 2, 4)  # of the decoder's causal convolutions, each of three positions

Context = tuple[Tensor, ...]


def _text_length(modality: Modality, width: int) -> int:
    if modality.kind != "text":
        raise ValueError(
            f"modality {modality.name!r}: kind {modality.kind!r} with shape {modality.shape}, "
            "expected kind 'text' with shape (length,)"
        )
    if width < 1:
        raise ValueError(f"width: {width}, expected at least 1")
    return modality.shape[0]


class TextEncoder(nn.Module):
    """Token ids (B, L) to a deterministic feature h of shape (B, D).

    Two convolutions read five tokens at a time. What is said counts wherever it stands: the largest
    answer of each channel over all positions. Where it stands: the answers once more, in order,
    drawn together to `SHORTEST` positions. Without the first, every phrase has to be learned at
    every place (max over time: Collobert et al. 2011).

    Args:
        modality: of kind `text`.
        feature_dim: D.
        width: channels; a position's token is embedded in as many numbers.
    """

    def __init__(self, modality: Modality, feature_dim: int, width: int) -> None:
        super().__init__()
        length = _text_length(modality, width)
        self.embedding = nn.Embedding(len(modality.vocabulary or ()), width)

        def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
            convolution = nn.Conv1d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm1d(outputs), nn.SiLU())

        self.phrases = nn.Sequential(layer(width, width), layer(width, 2 * width))
        places: list[nn.Module] = [nn.Conv1d(2 * width, width, 1)]
        while length > SHORTEST:
            places.append(layer(width, width, stride=2))
            length = (length + 1) // 2
        self.places = nn.Sequential(*places)
        self.head = nn.Sequential(
            nn.Linear(width * (length + 2), feature_dim), nn.BatchNorm1d(feature_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        phrases = self.phrases(self.embedding(x).mT)
        return self.head(torch.cat([phrases.amax(-1), self.places(phrases).flatten(1)], 1))


def chosen(logits: Tensor, generator: torch.Generator | None = None, top_p: float = 1.0) -> Tensor:
    """Tokens (...) out of logits (..., V): the likeliest, or drawn where there is a generator.

    With `top_p` below 1, draws are from the nucleus: the fewest tokens, the likeliest first, that
    have that probability together (Holtzman et al. 2020). A rare token is most often a mistake of
    the model's; one of several that are likely is a choice, and stays one.
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: {top_p}, expected above 0 and at most 1")
    if generator is None:
        return logits.argmax(-1)
    chances = logits.softmax(-1).flatten(0, -2)
    if top_p < 1:
        ranked, order = chances.sort(-1, descending=True)
        before = ranked.cumsum(-1) - ranked
        chances = torch.zeros_like(chances).scatter(-1, order, ranked * (before < top_p))
    drawn = torch.multinomial(chances.to(generator.device), 1, generator=generator)
    return drawn.view(logits.shape[:-1]).to(logits.device)


class TextDecoder(nn.Module):
    """Latent z, and the tokens before a position, to logits of the token at that position.

    Causal convolutions read the tokens before, the last `reach` of them. In every layer z scales
    and shifts what they say. At the end what z says about the position is mixed in.

    Args:
        modality: of kind `text`, with V tokens.
        latent_dim: Z.
        width: channels; a token is embedded in as many numbers.
    """

    reach = 1 + 2 * sum(DILATIONS)

    def __init__(self, modality: Modality, latent_dim: int, width: int) -> None:
        super().__init__()
        self.length, self.tokens = _text_length(modality, width), len(modality.vocabulary or ())
        self.words = modality.vocabulary is not None and modality.vocabulary.separator == " "
        doublings = max(0, math.ceil(math.log2(self.length / SHORTEST)))
        self.start = (width, math.ceil(self.length / 2**doublings))
        size = math.prod(self.start)
        self.head = nn.Sequential(
            nn.Linear(latent_dim, size, bias=False), nn.BatchNorm1d(size), nn.SiLU()
        )
        self.doublings = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, 2 * width, 3, padding=1, bias=False),
                nn.BatchNorm1d(2 * width),
                nn.SiLU(),
            )
            for _ in range(doublings)
        )
        self.embedding = nn.Embedding(self.tokens + 1, width)  # the last stands before the text
        self.before = nn.ModuleList(
            nn.Sequential(
                nn.ConstantPad1d((2 * dilation, 0), 0.0),
                nn.Conv1d(width, width, 3, dilation=dilation, bias=False),
                nn.BatchNorm1d(width),
            )
            for dilation in DILATIONS
        )
        self.modulate = nn.Linear(latent_dim, len(DILATIONS) * 2 * width)
        self.last: nn.Module = nn.Sequential(
            nn.Conv1d(2 * width, 2 * width, 1, bias=False),
            nn.BatchNorm1d(2 * width),
            nn.SiLU(),
            nn.Conv1d(2 * width, self.tokens, 1),
        )

    def places(self, z: Tensor) -> Tensor:
        """What z (B, Z) says about each position, (B, width, L)."""
        hidden = self.head(z).unflatten(1, self.start)
        for layer in self.doublings:
            # each position becomes two: half of its channels are for either
            hidden = layer(hidden).unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)
        return hidden[..., : self.length]

    def context(self, z: Tensor) -> Context:
        """`places`, and the scale and shift of every layer, (layers, 2, B, width, 1)."""
        told = self.modulate(z).unflatten(1, (len(DILATIONS), 2, -1))
        return self.places(z), told.movedim(0, 2)[..., None]

    def logits(self, context: Context, ids: Tensor) -> Tensor:
        """Logits (B, L, V) given what z says and, at l, `ids` (B, L) before l."""
        places, told = context
        known = nn.functional.pad(ids[:, :-1], (1, 0), value=self.tokens)
        before = self.embedding(known).mT
        for layer, (scale, shift) in zip(self.before, told, strict=True):
            before = before + nn.functional.silu(layer(before) * (1 + scale) + shift)
        return self.last(torch.cat([places, before.to(places.dtype)], 1)).mT.float()

    def forward(self, z: Tensor, ids: Tensor) -> Tensor:
        """Logits (B, L, V) of the tokens `ids` (B, L), given z (B, Z) and those before each."""
        return self.logits(self.context(z), ids)

    def write(
        self, z: Tensor, generator: torch.Generator | None = None, top_p: float = 1.0
    ) -> Tensor:
        """A text (B, L) for each z (B, Z), from left to right, each token as `chosen` chooses it:
        greedily, or drawn where there is a generator, from the nucleus if `top_p` is below 1.

        Where tokens are words, the first padding ends the text. Between letters it is a blank.
        """
        context = self.context(z)
        ids = torch.zeros(len(z), self.length, dtype=torch.long, device=z.device)
        for at in range(self.length):
            ids[:, at] = chosen(self.logits(context, ids)[:, at], generator, top_p)
            if self.words and at:
                ids[:, at] *= ids[:, at - 1] != 0
        return ids
