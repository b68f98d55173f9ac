"""Sentences about birds, and what a sentence says.

A sentence mentions two to four of a bird's attributes and is silent about the others: "a small
bird with a red crown, blue wings and a white belly". ``mentioned`` reads one, written here or
generated, and gives back what it says. Reading a written sentence gives exactly what it mentions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..vocabulary import UNKNOWN, Vocabulary, words_of
from .birds import VALUES, Values

LENGTH = 16  # words of the longest sentence
FEWEST, MOST = 2, 4  # attributes that a sentence mentions
COLOURED = ("crown", "back", "wing", "belly")
PARTS = (*COLOURED, "bill")
PLACES = ("pose", "facing")
# What the parts, and the values of the other attributes, are called.
NAMES = {
    "crown": ("crown", "cap"),
    "back": ("back",),
    "wing": ("wings",),
    "belly": ("belly",),
    "bill": ("bill", "beak"),
}
PHRASES = {
    "size": {"small": ("small", "little"), "large": ("large", "big")},
    "pose": {
        "perched": ("on a branch", "perched"),
        "standing": ("on the ground", "standing"),
        "flying": ("in flight", "flying"),
    },
    "facing": {
        "left": ("facing left", "looking left"),
        "right": ("facing right", "looking right"),
    },
}
_FORMS = ("with", "has", "whose", "places first")

Mentions = dict[str, str]


def write(mentions: Mapping[str, str], rng: np.random.Generator) -> str:
    """One sentence that says this and nothing else, in a form and words drawn at random.

    Args:
        mentions: {attribute: value}, as in ``birds.VALUES``; at least one.

    Raises:
        ValueError: an unknown attribute or value, or none.
    """
    _check(mentions)
    forms = [form for form in _FORMS if _suits(form, mentions)]
    form = forms[int(rng.integers(len(forms)))]

    def one(names: Sequence[str]) -> str:
        return names[int(rng.integers(len(names)))]

    subject = "bird"
    if "size" in mentions:
        subject = f"{one(PHRASES['size'][mentions['size']])} bird"
    parts = [name for name in PARTS if name in mentions]
    parts = [parts[at] for at in rng.permutation(len(parts))]
    places = [one(PHRASES[name][mentions[name]]) for name in PLACES if name in mentions]
    if form == "whose":
        said = [f"{one(NAMES[name])} {_is(name)} {mentions[name]}" for name in parts]
        said[0] = f"whose {said[0]}"
    else:
        said = [
            f"{_article(name, mentions[name])}{mentions[name]} {one(NAMES[name])}" for name in parts
        ]
    if form == "has":
        return " ".join([f"this {subject} has {_listed(said)}", *places])
    if form != "whose" and said:
        said[0] = f"with {said[0]}"
    listed = [_listed(said)] if said else []
    order = [*places, *listed] if form == "places first" else [*listed, *places]
    return " ".join([f"a {subject}", *order])


def describe(values: Values, rng: np.random.Generator) -> list[str]:
    """One sentence for each bird, about attributes chosen at random; another call gives others.

    Two, three or four attributes, equally often; which ones is uniform.

    Args:
        values: for each attribute (N,) int64, positions in ``VALUES``.
    """
    names = list(VALUES)
    sentences = []
    for row in range(len(values[names[0]])):
        count = rng.integers(FEWEST, MOST + 1)
        chosen = [names[at] for at in rng.permutation(len(names))[:count]]
        sentences.append(write({n: VALUES[n][values[n][row]] for n in chosen}, rng))
    return sentences


def mentioned(text: str) -> Mentions:
    """What a sentence says, {attribute: value}.

    Read from left to right; what is no statement is passed over. A sentence that says two
    different things of one attribute says nothing of it.
    """
    words, at = words_of(text), 0
    found: dict[str, set[str]] = {}
    while at < len(words):
        for statement, (name, value) in _STATEMENTS.get(words[at], ()):
            if tuple(words[at : at + len(statement)]) == statement:
                found.setdefault(name, set()).add(value)
                at += len(statement)
                break
        else:
            at += 1
    return {name: found[name].pop() for name in VALUES if len(found.get(name, ())) == 1}


def read_off(texts: Iterable[str]) -> dict[str, NDArray[np.int64]]:
    """What sentences say: for each attribute (N,) int64, as in ``VALUES``, -1 for silence."""
    said = [mentioned(text) for text in texts]
    return {
        name: np.array([values.index(s[name]) if name in s else -1 for s in said], np.int64)
        for name, values in VALUES.items()
    }


def _check(mentions: Mapping[str, str]) -> None:
    if not mentions:
        raise ValueError("mentions: {}, expected at least one attribute")
    for name, value in mentions.items():
        if name not in VALUES or value not in VALUES[name]:
            raise ValueError(
                f"mentions: {name!r}: {value!r}, expected "
                + (f"one of {VALUES[name]}" if name in VALUES else f"the names {list(VALUES)}")
            )


def _suits(form: str, mentions: Mapping[str, str]) -> bool:
    """Whether such a sentence can say this, and says it as no other form does."""
    if not any(name in mentions for name in PARTS):
        return form == "with"
    return form != "places first" or any(name in mentions for name in PLACES)


def _article(name: str, value: str) -> str:
    if name == "wing":
        return ""
    return "an " if value[0] in "aeiou" else "a "


def _is(name: str) -> str:
    return "are" if name == "wing" else "is"


def _listed(said: Sequence[str]) -> str:
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def _statements() -> dict[str, list[tuple[tuple[str, ...], tuple[str, str]]]]:
    """By first word: the words of a statement, and the attribute and value that it says."""
    table: dict[str, list[tuple[tuple[str, ...], tuple[str, str]]]] = {}

    def add(text: str, name: str, value: str) -> None:
        words = tuple(text.split())
        table.setdefault(words[0], []).append((words, (name, value)))

    for name, values in PHRASES.items():
        for value, phrases in values.items():
            for phrase in phrases:
                add(f"{phrase} bird" if name == "size" else phrase, name, value)
    for name in PARTS:
        for called, value in product(NAMES[name], VALUES[name]):
            add(f"{value} {called}", name, value)
            add(f"{called} {_is(name)} {value}", name, value)
    return table


def _vocabulary() -> Vocabulary:
    words = {word for first in _STATEMENTS.values() for said, _ in first for word in said}
    words |= {"a", "an", "this", "with", "has", "whose", "and"}
    return Vocabulary(("<pad>", UNKNOWN, *sorted(words)))


_STATEMENTS = _statements()
VOCABULARY = _vocabulary()
