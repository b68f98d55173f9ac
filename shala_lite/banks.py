r"""Encoders, or decoders, of all modalities: one net for each, or one for all that look alike.

    own nets        h_m = f_m(x_m)                                  x_m = g_m(z)
    shared nets     h_m = mix(f(x_m), e_m)                          x_m = g(z, e_m)

Sixteen views of an object are pictures of one shape. They can share f and g, and a learned vector
e_m then says which view it is: the parameters no longer grow with M, every view teaches the same
net, and all views pass it in one batch. Modalities share where kind, shape and vocabulary agree.

Both forms have one interface: a dictionary in, a dictionary out, and `bank[name]` for one of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shala_lite.kinds import Said, make_decoder, make_encoder, prepared
from shala_lite.modalities import Modality
from shala_lite.nets import apply_to_few, enough_rows
from shala_lite.text_nets import TextDecoder

VIEW_DIM = 16  # numbers in e_m


def make_encoders(modalities: Sequence[Modality], config: dict[str, Any]) -> "Encoders":
    """A bank of encoders, of the sizes in a model's `config`, shared if `shared_nets` is true."""
    return (SharedEncoders if config["shared_nets"] else Encoders)(modalities, config)


def make_decoders(
    modalities: Sequence[Modality], inputs: int, config: dict[str, Any]
) -> "Decoders":
    """A bank of decoders that read `inputs` numbers of z, shared if `shared_nets` is true."""
    return (SharedDecoders if config["shared_nets"] else Decoders)(modalities, inputs, config)


class Encoders(nn.Module):
    """x_m of any subset to features h_m, (B, D) each.

    Args:
        modalities: M of them.
        config: `feature_dim` D, and the sizes that `kinds.make_encoder` reads.
    """

    def __init__(self, modalities: Sequence[Modality], config: dict[str, Any]) -> None:
        super().__init__()
        self.modalities = {m.name: m for m in modalities}
        self.feature_dim: int = config["feature_dim"]
        self._build(config)

    def _build(self, config: dict[str, Any]) -> None:
        self.nets = nn.ModuleDict({n: make_encoder(m, config) for n, m in self.modalities.items()})

    def _encoded(self, x: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name, rows in x.items():
            yield name, apply_to_few(self.nets[name], rows)

    def __getitem__(self, name: str) -> Callable[[Tensor], Tensor]:
        """The encoder of one modality, from x_m (B, *shape) to h_m (B, D)."""
        return self.nets[name]

    def forward(self, x: Mapping[str, Tensor], present: Tensor | None = None) -> dict[str, Tensor]:
        """Features {name: (B, D)} of what is present, 0 where it is not.

        What is absent never reaches a net: not even its batch statistics know of it.

        Args:
            x: {name: (B, *shape)} of any subset.
            present: (B, M) bool, columns in the order of the modalities; None means all.
        """
        rows: dict[str, Tensor] = {}
        seen = {n: prepared(m, x[n]) for n, m in self.modalities.items() if n in x}
        if present is not None:
            for index, name in enumerate(self.modalities):
                if name in seen and not present[:, index].all():
                    rows[name] = present[:, index].nonzero()[:, 0]
                    seen[name] = seen[name][rows[name]]
        found = dict(self._encoded({name: some for name, some in seen.items() if len(some)}))
        for name in rows:
            h = seen[name].new_zeros(len(x[name]), self.feature_dim, dtype=torch.float32)
            if name in found:
                h = h.index_copy(0, rows[name], found[name].float())
            found[name] = h
        return {name: found[name].float() for name in seen}


class Decoders(nn.Module):
    """z to what each decoder says of its modality.

    Args:
        modalities: M of them.
        inputs: how many numbers of z a decoder reads.
        config: the sizes that `kinds.make_decoder` reads.
    """

    def __init__(self, modalities: Sequence[Modality], inputs: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.modalities = {m.name: m for m in modalities}
        self._build(inputs, config)

    def _build(self, inputs: int, config: dict[str, Any]) -> None:
        self.nets = nn.ModuleDict(
            {n: make_decoder(m, inputs, config) for n, m in self.modalities.items()}
        )

    def _groups(self, z: Mapping[str, Tensor]) -> Iterator[tuple[nn.Module, list[str], Tensor]]:
        """Each net, the names that it serves, and their rows of `z`, one below the other."""
        for name, rows in z.items():
            yield self.nets[name], [name], rows

    def __getitem__(self, name: str) -> Callable[..., Tensor]:
        """The decoder of one modality, from (B, inputs) to what it says, (B, ...).

        That of a text also takes the token ids (B, L) that it is asked about.
        """
        return self.nets[name]

    def forward(
        self, z: Mapping[str, Tensor], ids: Mapping[str, Tensor] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Name and decoded rows, of each modality in `z`, {name: (B_m, inputs)}, none empty.

        One after the other, so that without gradients no more than one need be held.

        Args:
            z: see above.
            ids: {name: (B_m, L)}, of each text in `z` the tokens whose likelihood is asked.
        """
        for net, names, rows in self._groups(z):
            told = [torch.cat([ids[name] for name in names])] if ids and names[0] in ids else []
            said = apply_to_few(net, rows, *told)
            yield from zip(names, said.split([len(z[name]) for name in names]))

    def of_asked(
        self,
        z: Mapping[str, Tensor],
        ids: Mapping[str, Tensor],
        asked: Mapping[str, Tensor],
    ) -> Iterator[Said]:
        """As `forward`, of those rows alone that are asked, and which they are.

        Args:
            z: {name: (N, inputs)}, N rows of several draws for each item, draw by draw.
            ids: {name: (B, L)} of each text in `z`, for the items of one draw.
            asked: {name: (N,) bool}; a name that is not there is asked of all rows.
        """
        rows = {name: mask.nonzero()[:, 0] for name, mask in asked.items() if not mask.all()}
        some = {name: z[name][rows[name]] if name in rows else z[name] for name in z}
        some = {name: each for name, each in some.items() if len(each)}
        told = {}
        for name in [name for name in ids if name in some]:
            at = rows.get(name, torch.arange(len(z[name]), device=z[name].device))
            told[name] = ids[name][at % len(ids[name])]
        for name, said in self(some, told):
            yield name, said, rows.get(name)

    def shown(
        self, z: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Name and observations (B_m, *shape) of each modality in `z`, as `forward`.

        Of images the mean; texts are written, greedily or, with a `generator`, drawn.
        """
        for net, names, rows in self._groups(z):
            with enough_rows(net, rows):
                seen = net.write(rows, generator) if isinstance(net, TextDecoder) else net(rows)
            yield from zip(names, seen.split([len(z[name]) for name in names]))


def _alike(modalities: Mapping[str, Modality]) -> dict[str, list[str]]:
    """Names of modalities by the first of those that share its kind, shape and vocabulary."""
    groups: dict[Any, list[str]] = {}
    for name, m in modalities.items():
        groups.setdefault((m.kind, m.shape, m.vocabulary), []).append(name)
    return {names[0]: names for names in groups.values()}


class _Views(nn.Module):
    """A learned vector e_m for each modality."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.at = {name: index for index, name in enumerate(names)}
        self.vectors = nn.Parameter(torch.randn(len(names), VIEW_DIM))

    def beside(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Rows {name: (B_m, K)}, one below the other, each with e_m: (sum of B_m, K + VIEW_DIM)."""
        vectors = [self.vectors[self.at[n]].expand(len(each), -1) for n, each in rows.items()]
        every = torch.cat([*rows.values()])
        return torch.cat([every, torch.cat(vectors).to(every.dtype)], dim=1)


class SharedEncoders(Encoders):
    """One encoder for all modalities that look alike; see `Encoders`."""

    def _build(self, config: dict[str, Any]) -> None:
        self.groups = _alike(self.modalities)
        width = self.feature_dim
        self.nets = nn.ModuleDict(
            {first: make_encoder(self.modalities[first], config) for first in self.groups}
        )
        self.views = _Views([*self.modalities])
        self.mix = nn.ModuleDict(
            {
                first: nn.Sequential(
                    nn.Linear(width + VIEW_DIM, width, bias=False),
                    nn.BatchNorm1d(width),
                    nn.SiLU(),
                    nn.Linear(width, width),
                    nn.BatchNorm1d(width),
                )
                for first in self.groups
            }
        )

    def _encoded(self, x: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for first, names in self.groups.items():
            some = {name: x[name] for name in names if name in x}
            if not some:
                continue
            counts = [len(rows) for rows in some.values()]
            h = apply_to_few(self.nets[first], torch.cat([*some.values()])).split(counts)
            h = apply_to_few(self.mix[first], self.views.beside(dict(zip(some, h))))
            yield from zip(some, h.split(counts))

    def __getitem__(self, name: str) -> Callable[[Tensor], Tensor]:
        """The encoder of one modality, from x_m (B, *shape) to h_m (B, D)."""
        return lambda rows: dict(self._encoded({name: rows}))[name]


class SharedDecoders(Decoders):
    """One decoder for all modalities that look alike; see `Decoders`."""

    def _build(self, inputs: int, config: dict[str, Any]) -> None:
        self.groups = _alike(self.modalities)
        self.nets = nn.ModuleDict(
            {
                first: make_decoder(self.modalities[first], inputs + VIEW_DIM, config)
                for first in self.groups
            }
        )
        self.views = _Views([*self.modalities])

    def __getitem__(self, name: str) -> Callable[..., Tensor]:
        """The decoder of one modality, as of `Decoders`."""

        def decoder(rows: Tensor, ids: Tensor | None = None) -> Tensor:
            return dict(self({name: rows}, {} if ids is None else {name: ids}))[name]

        return decoder

    def _groups(self, z: Mapping[str, Tensor]) -> Iterator[tuple[nn.Module, list[str], Tensor]]:
        for first, names in self.groups.items():
            some = {name: z[name] for name in names if name in z}
            if some:
                yield self.nets[first], [*some], self.views.beside(some)
