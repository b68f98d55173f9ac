"""The words of a text modality, and how strings become token ids and back.

A text is a row of ids of fixed length. Id 0 is the padding: a blank where tokens are letters.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING, UNKNOWN = "<pad>", "<unk>"
_MARKS = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.category(c)[0] == "M")
_LETTERS = rf"(?:[^\W_][{_MARKS}]*)+"
WORD = re.compile(rf"<\w+>|{_LETTERS}(?:[-']{_LETTERS})*")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a text, by id: id 0 fills what is left of the length.

    Args:
        tokens: distinct, at least two; the first is the padding. ``"<unk>"`` among them stands for
            every word that is not.
        separator: what stands between tokens in a string: ``" "`` for words, ``""`` for letters.

    Raises:
        ValueError: fewer than two tokens, one twice, an empty one, another separator, or a token
            that `encode` would not find again: with ``" "``, what is not one word in lower case;
            with ``""``, what is not one letter. Padding and ``"<unk>"`` are free.
    """

    tokens: tuple[str, ...]
    separator: str = " "

    def __post_init__(self) -> None:
        # A list (out of a JSON file, say) would make the dataclass unhashable.
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if len(self.tokens) < 2:
            raise ValueError(
                f"tokens: {len(self.tokens)}, expected at least 2, the first of them the padding"
            )
        if len(set(self.tokens)) != len(self.tokens) or not all(self.tokens):
            twice = sorted({t for t in self.tokens if not t or self.tokens.count(t) > 1})
            raise ValueError(f"tokens: {twice} empty or there twice, expected distinct tokens")
        if self.separator not in ("", " "):
            raise ValueError(f"separator: {self.separator!r}, expected '' or ' '")
        lost = [t for t in self.tokens[1:] if t != UNKNOWN and self.split(t) != [t]]
        if lost:
            what = "single words in lower case" if self.separator else "single letters"
            raise ValueError(f"tokens: {lost} would not be found in a text, expected {what}")

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 1) -> Vocabulary:
        """All words that occur at least ``least`` times in ``texts``, the frequent ones first.

        ``"<pad>"`` and ``"<unk>"`` come before them. Equally frequent words are in the alphabet's
        order, so that the same texts give the same ids.

        Raises:
            ValueError: no word occurs that often.
        """
        counts: dict[str, int] = {}
        for text in texts:
            for word in words_of(text):
                counts[word] = counts.get(word, 0) + 1
        for own in (PADDING, UNKNOWN):
            counts.pop(own, None)
        kept = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
        if not counts:
            raise ValueError("texts: there is no word in them, expected at least one")
        if not kept:
            raise ValueError(
                f"texts: none of {len(counts)} words occurs {least} times, "
                "expected at least one that does"
            )
        return cls((PADDING, UNKNOWN, *kept))

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Token ids (N, length) int16; what is left of the length is 0.

        A word that is no token becomes ``"<unk>"``. What is longer is cut, and one warning says
        how many texts were.

        Raises:
            ValueError: a word that is no token where ``"<unk>"`` is none either.
        """
        ids = {token: index for index, token in enumerate(self.tokens)}
        found, cut = torch.zeros(len(texts), length, dtype=torch.int16), 0
        for row, text in enumerate(texts):
            words = self.split(text)
            cut += len(words) > length
            for column, word in enumerate(words[:length]):
                if (at := ids.get(word, ids.get(UNKNOWN))) is None:
                    raise ValueError(
                        f"texts[{row}]: {word!r} in {text!r} is no token, "
                        f"expected among {list(self.tokens)}"
                    )
                found[row, column] = at
        if cut:
            warnings.warn(f"{cut} of {len(texts)} texts cut to {length} tokens", stacklevel=2)
        return found

    def split(self, text: str) -> list[str]:
        """The words or letters of a text, tokens or not."""
        return words_of(text) if self.separator else list(text)

    def decode(self, ids: Tensor) -> list[str]:
        """Strings of ids (N, length); padding at the end is left out, in between it is kept."""
        texts = []
        for row in ids.tolist():
            while row and row[-1] == 0:
                row.pop()
            texts.append(self.separator.join(self.tokens[index] for index in row))
        return texts


def words_of(text: str) -> list[str]:
    """The words of a sentence, lower-cased; punctuation is left out, hyphens stay.

    Letters of any alphabet count, with the marks that belong to them. An accent is the same whether
    it is part of its letter or a character of its own.
    """
    return WORD.findall(unicodedata.normalize("NFC", text.lower()))
