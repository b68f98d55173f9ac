"""Chairs, tables, lamps and cars, built from attributes and lopsided on purpose.

Seven attributes make an object; see ``VALUES``. Everything else is nuisance: proportions, which do
not depend on the attributes. Each object has parts on one side only, in the accent colour, and a
front that differs from its back. So no two of its views are alike, and a body that looks the same
from all around is none of these.

    chair  an armrest with a panel on one side           few legs: a column on a disc
    table  a drawer on one side, a book above it         few legs: a column on a disc
    lamp   an arm bent to one side; accent on foot, arm  few legs: a disc
    car    a door on one side, a box on that side of the roof    few: four wheels, many: six

An object faces +x, so that its left is +y, and stands upright along z.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .meshes import Colour, Mesh, box, fitted, join, solid, tube

COLOURS: dict[str, Colour] = {
    "red": (206, 40, 44),
    "yellow": (248, 204, 50),
    "green": (52, 156, 72),
    "blue": (44, 96, 214),
    "purple": (146, 62, 170),
    "grey": (126, 128, 134),
}
VALUES = {
    "category": ("chair", "table", "lamp", "car"),
    "main": tuple(COLOURS),
    "accent": tuple(COLOURS),
    "side": ("left", "right"),
    "width": ("narrow", "wide"),
    "height": ("low", "high"),
    "legs": ("few", "many"),
}
NUISANCES = 8  # numbers in [0, 1) that say everything else about an object

_WOOD, _DARK, _GLASS = (92, 66, 46), (48, 48, 56), (98, 128, 150)
_LIGHT, _REAR = (255, 240, 190), (150, 16, 20)

Values = dict[str, NDArray[np.int64]]


def deal(count: int, rng: np.random.Generator) -> Values:
    """Attributes of ``count`` objects: for each name (N,) int64, positions in ``VALUES``.

    Each value of an attribute is as frequent as the others, give or take one, and each pair of
    colours as well: the accent is never the main colour. Otherwise attributes are independent.
    """
    dealt = {}
    for name, values in VALUES.items():
        if name not in ("main", "accent"):
            dealt[name] = (rng.permutation(count) % len(values)).astype(np.int64)
    kinds = len(COLOURS)
    pair = rng.permutation(count) % (kinds * (kinds - 1))
    dealt["main"] = (pair % kinds).astype(np.int64)
    dealt["accent"] = ((pair + 1 + pair // kinds) % kinds).astype(np.int64)
    return {name: dealt[name] for name in VALUES}


def build(values: Mapping[str, int], nuisance: NDArray[np.float64]) -> Mesh:
    """One object, in the unit sphere.

    Args:
        values: of each attribute the position in ``VALUES``.
        nuisance: (NUISANCES,) in [0, 1), its proportions.

    Raises:
        ValueError: an attribute that is missing or unknown, a value or shape out of range.
    """
    if set(values) != set(VALUES):
        raise ValueError(f"values: expected the names {list(VALUES)}, got {list(values)}")
    for name, seen in values.items():
        if not 0 <= seen < len(VALUES[name]):
            raise ValueError(f"values[{name!r}]: {seen}, expected 0 to {len(VALUES[name]) - 1}")
    if nuisance.shape != (NUISANCES,):
        raise ValueError(f"nuisance: expected ({NUISANCES},), got {nuisance.shape}")
    made = {name: VALUES[name][seen] for name, seen in values.items()}
    return fitted(join(_MAKERS[made["category"]](made, 2 * nuisance - 1)))


# Each maker takes the names of the values, and numbers in [-1, 1) that stretch the proportions.


def _common(made: Mapping[str, str]) -> tuple[Colour, Colour, float, bool, bool, bool]:
    """Main colour, accent, +1 for left and -1 for right, and whether wide, high, on many legs."""
    wide, high, many = (made[k] == v for k, v in zip(("width", "height", "legs"), _LARGE))
    left = 1.0 if made["side"] == "left" else -1.0
    return COLOURS[made["main"]], COLOURS[made["accent"]], left, wide, high, many


_LARGE = ("wide", "high", "many")


def _beside(side: float, inner: float, outer: float) -> tuple[float, float]:
    """Smaller and larger y of what lies between two distances from the middle, on one side."""
    return (inner, outer) if side > 0 else (-outer, -inner)


def _stand(many: bool, x: float, y: float, height: float, thick: float, spread: float) -> list:
    """Four legs at the corners, or a column on a disc, below a plate of half sizes x and y."""
    if not many:
        foot = (0.75 + 0.1 * spread) * min(x, y)
        column = tube((0, 0, 0), (0, 0, height), (1.5 * thick, 1.5 * thick), _WOOD)
        return [column, tube((0, 0, 0), (0, 0, 0.06), (foot, foot), _WOOD, 12)]
    lean = 0.06 + 0.05 * spread
    tops = [(sx * (x - thick), sy * (y - thick)) for sx in (-1, 1) for sy in (-1, 1)]
    return [
        tube((u * (1 + lean), v * (1 + lean), 0), (u, v, height), (0.8 * thick, thick), _WOOD, 4)
        for u, v in tops
    ]


def _chair(made: Mapping[str, str], luck: NDArray[np.float64]) -> list[Mesh]:
    main, accent, side, wide, high, many = _common(made)
    x, y = 0.26 + 0.03 * luck[0], (0.42 if wide else 0.23) * (1 + 0.15 * luck[1])
    seat = 0.44 + 0.06 * luck[2]
    top = seat + (0.78 if high else 0.36) * (1 + 0.15 * luck[3])
    tilt = 0.08 + 0.07 * luck[4]
    arm = seat + 0.22 + 0.03 * luck[5]
    near, far = y - 0.03, y + 0.06
    floor = [(-x, -y, seat), (-x + 0.08, -y, seat), (-x + 0.08, y, seat), (-x, y, seat)]
    back = [(u - tilt, v, top) for u, v, _ in floor]
    front = x * (0.8 + 0.15 * luck[6])
    panel, pad = _beside(side, near, far - 0.02), _beside(side, near - 0.03, far + 0.02)
    return [
        *_stand(many, x, y, seat, 0.035, luck[7]),
        box((-x, -y, seat - 0.04), (x, y, seat + 0.05), main),
        solid(floor, back, main),
        box((-x, panel[0], seat - 0.04), (front - 0.06, panel[1], arm), accent),
        box((-x, pad[0], arm), (front, pad[1], arm + 0.07), accent),
    ]


def _table(made: Mapping[str, str], luck: NDArray[np.float64]) -> list[Mesh]:
    main, accent, side, wide, high, many = _common(made)
    x, y = 0.36 + 0.04 * luck[0], (0.8 if wide else 0.46) * (1 + 0.15 * luck[1])
    top = (0.82 if high else 0.44) * (1 + 0.15 * luck[2])
    deep = 0.24 + 0.04 * luck[3]
    inner, outer = _beside(side, (0.35 + 0.1 * luck[4]) * y, 0.86 * y)
    knob = (inner + outer) / 2
    book = _beside(side, 0.4 * y, 0.4 * y + 0.24)
    back = -0.8 * x + 0.12 * (1 + luck[5])
    return [
        *_stand(many, 0.92 * x, 0.94 * y, top, 0.045, luck[7]),
        box((-x, -y, top), (x, y, top + 0.07), main),
        box((-0.8 * x, inner, top - deep), (0.95 * x, outer, top), accent),
        box((0.95 * x, knob - 0.06, top - 0.16), (0.95 * x + 0.04, knob + 0.06, top - 0.08), _DARK),
        box((back, book[0], top + 0.07), (back + 0.3, book[1], top + 0.2 + 0.04 * luck[6]), accent),
    ]


def _lamp(made: Mapping[str, str], luck: NDArray[np.float64]) -> list[Mesh]:
    main, accent, side, wide, high, many = _common(made)
    top = (1.25 if high else 0.7) * (1 + 0.15 * luck[0])
    reach = 0.3 + 0.05 * luck[1]
    ahead = 0.14 + 0.06 * luck[2]
    radius = (0.34 if wide else 0.19) * (1 + 0.15 * luck[3])
    deep = 0.3 + 0.05 * luck[4]
    elbow, tip = (0.0, 0.3 * side * reach, top + 0.14), (ahead, side * reach, top + 0.04)
    hung = (tip[0] + 0.08, tip[1] + 0.04 * side, tip[2] - deep)
    foot = 0.24 + 0.03 * luck[5]
    stand = [tube((0, 0, 0), (0, 0, 0.07), (foot, 0.9 * foot), accent, 12)]
    if many:
        corners = [(sx * foot, sy * foot, 0.0) for sx in (-1, 1) for sy in (-1, 1)]
        stand = [tube(c, (0, 0, 0.28), (0.035, 0.035), accent, 4) for c in corners]
    return [
        *stand,
        tube((0, 0, 0.05), (0, 0, top), (0.04, 0.04), _DARK, 6),
        tube((0, 0, top - 0.02), elbow, (0.05, 0.05), accent, 6),
        tube(elbow, tip, (0.05, 0.05), accent, 6),
        tube(hung, tip, (radius, (0.45 + 0.1 * luck[6]) * radius), main, 12),
        tube(np.add(hung, (0, 0, -0.05)), hung, (0.4 * radius, 0.7 * radius), _LIGHT),
        box((0.03, -0.07, 0.3), (0.14, 0.07, 0.46 + 0.04 * luck[7]), main),
    ]


def _car(made: Mapping[str, str], luck: NDArray[np.float64]) -> list[Mesh]:
    main, accent, side, wide, high, many = _common(made)
    x, y = 0.92 + 0.06 * luck[0], (0.48 if wide else 0.33) * (1 + 0.12 * luck[1])
    low, deck = 0.14, 0.46 + 0.04 * luck[2]
    roof = deck + (0.56 if high else 0.26) * (1 + 0.15 * luck[3])
    wheel = 0.18 + 0.02 * luck[4]
    start, stop = -0.85 * x, (0.4 + 0.1 * luck[5]) * x
    rake = 0.18 + 0.06 * luck[6]
    sill = [(start, -0.96 * y), (stop, -0.96 * y), (stop, 0.96 * y), (start, 0.96 * y)]
    rim = [(start + 0.06, -0.8 * y), (stop - rake, -0.8 * y)]
    rim += [(u, -v) for u, v in reversed(rim)]
    door, rack = _beside(side, y - 0.02, y + 0.025), _beside(side, 0.08 * y, 0.72 * y)
    hinge = (0.05 + 0.1 * luck[7]) * x
    parts = [
        box((-x, -y, low), (x, y, deck), main),
        solid([(*p, deck) for p in sill], [(*p, roof) for p in rim], _GLASS),
        solid([(*p, roof) for p in rim], [(*p, roof + 0.04) for p in rim], main),
        box((hinge - 0.5, door[0], low + 0.04), (hinge + 0.12, door[1], deck + 0.02), accent),
        box((start + 0.16, rack[0], roof + 0.04), (start + 0.62, rack[1], roof + 0.19), accent),
    ]
    for v in (-0.68 * y, 0.68 * y):
        for at, colour in ((x, _LIGHT), (-x, _REAR)):
            lamp = (at - 0.03, v - 0.2 * y, deck - 0.17), (at + 0.03, v + 0.2 * y, deck - 0.05)
            parts.append(box(*lamp, colour))
    for u in (-0.6 * x, 0.62 * x, *((0.0,) if many else ())):
        for v in (-y, y):
            end = (u, v + 0.05 * np.sign(v), wheel)
            hub = tube((u, v - 0.1 * np.sign(v), wheel), end, (wheel, wheel), _DARK, 10)
            parts.append(hub)
    return parts


_MAKERS = {"chair": _chair, "table": _table, "lamp": _lamp, "car": _car}
