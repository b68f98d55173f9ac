r"""The denoiser: a Transformer or an MLP over the latent, told which features are given.

Time and condition enter every block through adaptive normalisation with a gate that starts closed
(DiT, Peebles and Xie 2023):

    c = time(t) + given(sum over present m of project_m(h_m))
    x <- x + gate_1(c) attention(scale_1(c) norm(x) + shift_1(c))        the Transformer alone
    x <- x + gate_2(c) mlp(scale_2(c) norm(x) + shift_2(c))

The Transformer reads z of Z numbers as T tokens of Z/T numbers. The MLP reads it whole (the
denoiser of Li et al. 2024, MAR): on a small latent and a CPU it learns more a second.

A sum over what is present makes any subset a condition, and makes it blind to what is absent.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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


class MLPBlock(nn.Module):
    """One residual block of two linear layers with adaptive normalisation.

    Args:
        width: of the residual stream.
        expansion: the hidden layer is that many times wider.
    """

    def __init__(self, width: int, expansion: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width), nn.SiLU(), nn.Linear(expansion * width, width)
        )
        self.modulate = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, W), condition (B, W)."""
        shift, scale, gate = self.modulate(condition).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class Denoiser(nn.Module):
    """F(z_t, t, condition), shape (B, Z): what every denoiser shares. Its output starts at zero.

    Args:
        names: the modalities.
        feature_dim: D.
        width: of the residual stream.
        outputs: numbers read from each vector of the stream.
    """

    def __init__(self, names: Sequence[str], feature_dim: int, width: int, outputs: int) -> None:
        super().__init__()
        self.time = TimeEmbedding(width)
        self.subset = SubsetEmbedding(names, feature_dim, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(width, 2 * width)
        self.read = nn.Linear(width, outputs)
        for layer in (self.modulate, self.read):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def stream(self, z: Tensor, condition: Tensor) -> Tensor:
        """The residual stream after the last block, (B, T, W)."""
        raise NotImplementedError

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        features: dict[str, Tensor],
        present: Tensor,
        hint: Tensor | None = None,
    ) -> Tensor:
        """z (B, Z), t (B,), features {name: (B, D)}, present (B, M) bool.

        A hint, (B, W), is added to the condition: what else the output depends on.
        """
        condition = self.time(t) + self.subset(features, present)
        condition = nn.functional.silu(condition if hint is None else condition + hint)
        shift, scale = self.modulate(condition)[:, None].chunk(2, dim=-1)
        x = self.norm(self.stream(z, condition))
        return self.read(x * (1 + scale) + shift).flatten(1).float()


class TransformerDenoiser(Denoiser):
    """Attention among T tokens of z.

    Args:
        latent_dim: Z.
        names: the modalities.
        feature_dim: D.
        width: of the residual stream, a multiple of `heads`.
        depth: number of blocks.
        tokens: T, a divisor of Z.
        heads: attention heads.
    """

    def __init__(
        self,
        latent_dim: int,
        names: Sequence[str],
        feature_dim: int,
        *,
        width: int,
        depth: int,
        tokens: int,
        heads: int,
    ) -> None:
        if latent_dim % tokens:
            raise ValueError(f"tokens: {tokens}, expected a divisor of latent_dim {latent_dim}")
        if width % heads:
            raise ValueError(f"heads: {heads}, expected a divisor of width {width}")
        super().__init__(names, feature_dim, width, latent_dim // tokens)
        self.tokens = tokens
        self.embed = nn.Linear(latent_dim // tokens, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def stream(self, z: Tensor, condition: Tensor) -> Tensor:
        """The residual stream after the last block, (B, T, W)."""
        x = self.embed(z.unflatten(1, (self.tokens, -1))) + self.position
        for block in self.blocks:
            x = block(x, condition)
        return x


class MLPDenoiser(Denoiser):
    """Residual blocks of linear layers on the whole of z.

    Args:
        latent_dim: Z.
        names: the modalities.
        feature_dim: D.
        width: of the residual stream.
        depth: number of blocks.
    """

    def __init__(
        self, latent_dim: int, names: Sequence[str], feature_dim: int, *, width: int, depth: int
    ) -> None:
        super().__init__(names, feature_dim, width, latent_dim)
        self.embed = nn.Linear(latent_dim, width)
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(depth))

    def stream(self, z: Tensor, condition: Tensor) -> Tensor:
        """The residual stream after the last block, one vector an item, (B, 1, W)."""
        x = self.embed(z)
        for block in self.blocks:
            x = block(x, condition)
        return x[:, None]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Keep a module in evaluation mode for the time being, errors included."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


DENOISERS: dict[str, Any] = {"transformer": TransformerDenoiser, "mlp": MLPDenoiser}
