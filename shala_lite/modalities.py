"""What one modality is: a name, the shape of one observation, and its kind.

A set of M modalities x_1, ..., x_M shows one thing in M ways. Everything else in the library
(encoders, likelihoods, judges) is chosen from what stands here, never from the data set's name.
"""

from __future__ import annotations

from dataclasses import dataclass

from .vocabulary import Vocabulary

# The axes of one observation of each kind.
AXES = {"image": ("channels", "height", "width"), "text": ("length",)}
KINDS = tuple(AXES)


@dataclass(frozen=True)
class Modality:
    """One way of observing an item.

    Args:
        name: the key under which batches hold this modality, e.g. ``"m0"``.
        shape: the shape of one observation without the batch axis: (channels, height, width) for
            an image, (length,) for a text.
        kind: what the numbers are. ``"image"``: pixels, float in [0, 1] once in a batch.
            ``"text"``: token ids, int64 once in a batch.
        vocabulary: of a text, and of nothing else.

    Raises:
        ValueError: for an empty name, a shape that is not made of positive integers or does
            not suit the kind, a kind that is not in ``KINDS``, or a text without a vocabulary.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "image"
    vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name: expected a non-empty string, got {self.name!r}")
        # A list (out of a JSON file, say) would make the dataclass unhashable.
        object.__setattr__(self, "shape", tuple(self.shape))
        if not self.shape or any(type(n) is not int or n < 1 for n in self.shape):
            raise ValueError(f"shape of {self.name!r}: expected positive integers, {self.shape!r}")
        if self.kind not in KINDS:
            raise ValueError(
                f"kind of {self.name!r}: expected one of {', '.join(KINDS)}, got {self.kind!r}"
            )
        if len(self.shape) != len(AXES[self.kind]):
            axes = ", ".join(AXES[self.kind])
            raise ValueError(
                f"shape of {self.name!r}: kind {self.kind} has ({axes}), got {self.shape}"
            )
        if (self.kind == "text") != (self.vocabulary is not None):
            raise ValueError(
                f"vocabulary of {self.name!r}: expected one for a text and None for an image, "
                f"got {self.vocabulary!r} for kind {self.kind!r}"
            )

    @classmethod
    def from_config(cls, config: dict) -> Modality:
        """The modality that ``dataclasses.asdict`` wrote down."""
        vocabulary = config.get("vocabulary")
        vocabulary = vocabulary and Vocabulary(**vocabulary)
        return cls(config["name"], tuple(config["shape"]), config["kind"], vocabulary)
