"""Encoder and decoder of a text: convolutions along its tokens.

The decoder says for every position which token stands there, each independently given z: what the
positions must agree on, z has to carry.
"""

import math

from torch import Tensor, nn

from shala_lite.modalities import Modality

SHORTEST = 4  # positions at which a text is read as a whole


def _text_length(modality: Modality, width: int) -> int:
    if modality.kind != "text":
        raise ValueError(
            f"modality {modality.name!r}: kind {modality.kind!r} with shape {modality.shape}, "
            "expected kind 'text' with shape (length,)"
        )
    if width < 1:
        raise ValueError(f"width: {width}, expected at least 1")
    return modality.shape[0]


def _tokens(modality: Modality) -> int:
    return len(modality.vocabulary or ())


class TextEncoder(nn.Module):
    """Token ids (B, L) to a deterministic feature h of shape (B, D).

    Args:
        modality: of kind `text`.
        feature_dim: D.
        width: channels; a position's token is embedded in as many numbers.
    """

    def __init__(self, modality: Modality, feature_dim: int, width: int) -> None:
        super().__init__()
        length = _text_length(modality, width)
        self.embedding = nn.Embedding(_tokens(modality), width)
        layers: list[nn.Module] = [nn.Conv1d(width, width, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm1d(width), nn.SiLU()]
        while length > SHORTEST:
            layers.append(nn.Conv1d(width, width, 3, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm1d(width), nn.SiLU()]
            length = (length + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(width * length, feature_dim), nn.BatchNorm1d(feature_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolutions(self.embedding(x).mT).flatten(1))


class TextDecoder(nn.Module):
    """Latent z of shape (B, Z) to logits (B, L, V) of the token at every position.

    Args:
        modality: of kind `text`, with V tokens.
        latent_dim: Z.
        width: channels.
    """

    def __init__(self, modality: Modality, latent_dim: int, width: int) -> None:
        super().__init__()
        self.length = _text_length(modality, width)
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
        self.last = nn.Conv1d(width, _tokens(modality), 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.head(z).unflatten(1, self.start)
        for layer in self.doublings:
            # each position becomes two: half of its channels are for either
            hidden = layer(hidden).unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)
        return self.last(hidden)[..., : self.length].mT.float()
