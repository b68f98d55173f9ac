r"""The denoiser: a Transformer over tokens of the latent, told which features are given.

z of Z numbers is read as T tokens of Z/T numbers. Time and condition enter every block through
adaptive normalisation with a gate that starts closed (DiT, Peebles and Xie 2023):

    c = time(t) + given(sum over present m of project_m(h_m))
    x <- x + gate_1(c) attention(scale_1(c) norm(x) + shift_1(c))
    x <- x + gate_2(c) mlp(scale_2(c) norm(x) + shift_2(c))

A sum over what is present makes any subset a condition, and makes it blind to what is absent.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

FREQUENCIES = 64


class TimeEmbedding(nn.Module):
    """t in [0, 1], shape (B,), to (B, width): sines and cosines, then two linear layers."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        steps = torch.arange(FREQUENCIES) / FREQUENCIES
        self.register_buffer("frequencies", 1000 * torch.exp(-math.log(1000) * steps))
        self.layers = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.frequencies
        return self.layers(torch.cat([angle.cos(), angle.sin()], dim=-1))


class SubsetEmbedding(nn.Module):
    """Features of any subset of the modalities to one vector (B, width).

    Args:
        names: the modalities, in the order of `present`.
        feature_dim: D.
        width: size of the result.
    """

    def __init__(self, names: Sequence[str], feature_dim: int, width: int) -> None:
        super().__init__()
        self.names, self.width = tuple(names), width
        self.project = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(feature_dim, width), nn.SiLU(), nn.Linear(width, width)
                )
                for name in self.names
            }
        )
        self.combine = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Map {name: (B, D)} and present (B, M) bool; a feature not present has no influence."""
        total = torch.zeros((), device=present.device)
        for index, name in enumerate(self.names):
            if name in features:
                given = present[:, index, None]
                clean = torch.where(given, features[name], torch.zeros_like(features[name]))
                total = total + self.project[name](clean) * given
        if total.ndim == 0:
            total = torch.zeros(len(present), self.width, device=present.device)
        return self.combine(total.float())


class Block(nn.Module):
    """One Transformer block with adaptive normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def attend(self, x: Tensor) -> Tensor:
        # (B, T, 3W) -> three of (B, heads, T, W / heads)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, W), condition (B, W)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulate(condition)[
            :, None
        ].chunk(6, dim=-1)
        x = x + gate_1 * self.attend(self.norm(x) * (1 + scale_1) + shift_1)
        return x + gate_2 * self.mlp(self.norm(x) * (1 + scale_2) + shift_2)


class TransformerDenoiser(nn.Module):
    """F(z_t, t, condition), shape (B, Z): a network whose output starts at zero.

    Args:
        latent_dim: Z.
        names: the modalities.
        feature_dim: D.
        tokens: T, a divisor of Z.
        width: of the residual stream, a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
    """

    def __init__(
        self,
        latent_dim: int,
        names: Sequence[str],
        feature_dim: int,
        *,
        tokens: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        if latent_dim % tokens:
            raise ValueError(f"tokens: {tokens}, expected a divisor of latent_dim {latent_dim}")
        if width % heads:
            raise ValueError(f"heads: {heads}, expected a divisor of width {width}")
        self.tokens = tokens
        self.embed = nn.Linear(latent_dim // tokens, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.time = TimeEmbedding(width)
        self.subset = SubsetEmbedding(names, feature_dim, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(width, 2 * width)
        self.read = nn.Linear(width, latent_dim // tokens)
        for layer in (self.modulate, self.read):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor, t: Tensor, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """z (B, Z), t (B,), features {name: (B, D)}, present (B, M) bool."""
        condition = nn.functional.silu(self.time(t) + self.subset(features, present))
        x = self.embed(z.unflatten(1, (self.tokens, -1))) + self.position
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulate(condition)[:, None].chunk(2, dim=-1)
        return self.read(self.norm(x) * (1 + scale) + shift).flatten(1).float()
