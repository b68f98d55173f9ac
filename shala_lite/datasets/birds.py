"""Birds, drawn from attributes: what the embedded ``cub`` shows in its pictures.

Eight attributes make a bird; see ``VALUES``. Everything else is nuisance: the light, the colours
and clouds behind the bird, where and how tilted it is, its exact scale. The tail has the colour
of the back, face and throat have that of the belly.

Shapes are drawn four times as large as the picture, one palette index per part, and averaged
down. A colour therefore shows in its own part and at most one pixel around it. Corners are rounded
to whole pixels of the large drawing, so that the last bit of a sine does not matter.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE = 64
COLOURS = {
    "black": (38, 36, 42),
    "white": (250, 249, 244),
    "red": (206, 38, 44),
    "orange": (243, 136, 28),
    "yellow": (251, 222, 66),
    "green": (58, 150, 72),
    "blue": (46, 98, 206),
    "purple": (134, 62, 160),
}
VALUES = {
    "crown": tuple(COLOURS),
    "back": tuple(COLOURS),
    "wing": tuple(COLOURS),
    "belly": tuple(COLOURS),
    "bill": ("short", "long", "hooked"),
    "size": ("small", "large"),
    "facing": ("left", "right"),
    "pose": ("perched", "standing", "flying"),
}
NUISANCES = 12  # numbers in [0, 1) that say everything else about a picture

_FINE = 4  # pixels of the drawing for one of the picture
_SCALES = {"small": 0.68, "large": 0.95}
_SKIES = ((166, 206, 232), (206, 226, 178), (240, 216, 176), (214, 196, 226), (176, 222, 208))
# Palette: the first SIDE indices are the background, one for each row.
_OUTLINE, _CROWN, _BACK, _WING, _BELLY, _BILL, _EYE, _CLOUD, _WOOD, _LEAF, _EARTH = range(
    SIDE, SIDE + 11
)
_FIXED = {
    _OUTLINE: (58, 48, 50),
    _BILL: (112, 104, 104),
    _EYE: (16, 14, 16),
    _WOOD: (122, 88, 62),
    _LEAF: (122, 158, 96),
    _EARTH: (176, 150, 112),
}

Images = NDArray[np.uint8]
Values = dict[str, NDArray[np.int64]]
Points = NDArray[np.float64]


def deal(size: int, rng: np.random.Generator) -> Values:
    """Attributes of ``size`` birds: for each name (N,) int64, positions in ``VALUES``.

    Attributes are independent of each other. Each value of one is as frequent as the others, give
    or take one.
    """
    return {
        name: (rng.permutation(size) % len(values)).astype(np.int64)
        for name, values in VALUES.items()
    }


def draw(values: Values, nuisance: Points) -> Images:
    """Pictures of birds.

    Args:
        values: for each attribute (N,) int64, positions in ``VALUES``.
        nuisance: (N, NUISANCES) in [0, 1): the rest. It does not depend on the attributes, so that
            one attribute can be changed and nothing else.

    Returns:
        (N, 3, 64, 64) uint8.

    Raises:
        ValueError: an attribute that is missing or unknown, a value or shape out of range.
    """
    if set(values) != set(VALUES):
        raise ValueError(f"values: expected the names {list(VALUES)}, got {list(values)}")
    count = len(nuisance)
    if nuisance.shape != (count, NUISANCES):
        raise ValueError(f"nuisance: expected (N, {NUISANCES}), got {nuisance.shape}")
    for name, seen in values.items():
        known = len(VALUES[name])
        if seen.shape != (count,) or (count and not 0 <= seen.min() <= seen.max() < known):
            raise ValueError(
                f"values[{name!r}]: expected ({count},) integers from 0 to {known - 1}, got {seen}"
            )
    pictures = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for row in range(count):
        bird = {name: VALUES[name][seen[row]] for name, seen in values.items()}
        pictures[row] = _paint(bird, nuisance[row]).transpose(2, 0, 1)
    return pictures


def _paint(bird: dict[str, str], luck: Points) -> Images:
    """One picture (64, 64, 3) uint8."""
    sky, fade, light, cloud, cloud_x, cloud_y, tilt, grow, x, y, branch, twig = luck
    picture = _rows().copy()
    pen = ImageDraw.Draw(picture)
    scale = _SCALES[bird["size"]] * (0.95 + 0.1 * grow)
    flip = 1.0 if bird["facing"] == "right" else -1.0
    flying = bird["pose"] == "flying"
    feet = np.array([32 + 5 * (x - 0.5), (36 if flying else 50) + 4 * (y - 0.5)])

    def put(points: Points) -> list[int]:
        return np.rint(points * _FINE).astype(int).ravel().tolist()

    if cloud < 0.7:
        at = np.array([8 + 48 * cloud_x, 6 + 16 * cloud_y])
        for puff in _CLOUDS:
            pen.polygon(put(at + puff), fill=_CLOUD)
    if bird["pose"] == "perched":
        lean = 0.24 * (branch - 0.5)
        side = 21 if twig < 0.5 else -21
        sprig = _SPRIG * (1, -1 if branch < 0.5 else 1) + (side, side * lean)
        pen.polygon(put(feet + sprig), fill=_LEAF)
        beam = np.array([[-70.0, -1.6], [70, -1.6], [70, 2], [-70, 2]])
        beam[:, 1] += beam[:, 0] * lean
        pen.polygon(put(feet + beam), fill=_WOOD)
    elif bird["pose"] == "standing":
        edge = np.array([[-70.0, 1 - 4 * branch], [0, 0], [70, 1 - 4 * twig], [70, 70], [-70, 70]])
        pen.polygon(put(feet + edge - (0, 3)), fill=_EARTH)

    angle = 0.28 * (tilt - 0.5)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = turn * [flip, 1.0] * scale
    shapes = _shapes("flying" if flying else "sitting", bird["bill"])
    placed = [(part, put(feet + points @ matrix), line) for part, points, line in shapes]
    for _, points, line in placed:
        if line:
            pen.line([*points, *points[:4]], fill=_OUTLINE, width=line)
    for part, points, _ in placed:
        pen.polygon(points, fill=part)
    # The drawing says which part is where, the palette in which colour.
    picture.putpalette(_palette(bird, sky, light, fade))
    return np.asarray(picture.convert("RGB").reduce(_FINE))


def _palette(bird: dict[str, str], sky: float, light: float, fade: float) -> list[int]:
    at = sky * len(_SKIES)
    near, far = np.array(_SKIES)[[int(at), (int(at) + 1) % len(_SKIES)]]
    tint = near + (far - near) * (at - int(at))
    rows = np.linspace(0.0, 1.0, SIDE)[:, None]
    colours = np.zeros((SIDE + 11, 3))
    colours[:SIDE] = tint * (1 - (0.06 + 0.16 * fade) * (1 - rows))
    colours[_CLOUD] = 0.5 * tint + 0.5 * 255
    for index, colour in _FIXED.items():
        colours[index] = colour
    for index, part in ((_CROWN, "crown"), (_BACK, "back"), (_WING, "wing"), (_BELLY, "belly")):
        colours[index] = COLOURS[bird[part]]
    bright = np.rint(colours * (0.87 + 0.16 * light)).clip(0, 255)
    return bright.astype(int).ravel().tolist()


@cache
def _rows() -> Image.Image:
    """The empty drawing: each pixel holds the number of its row in the picture."""
    rows = np.repeat(np.arange(SIDE, dtype=np.uint8), _FINE)[:, None]
    return Image.fromarray(np.broadcast_to(rows, (SIDE * _FINE,) * 2).copy(), "P")


def _arc(centre: tuple, radii: tuple, start: float, stop: float, lean: float = 0.0) -> Points:
    """Points of an ellipse between two angles, in degrees; y points down, so 90 is below."""
    angles = np.deg2rad(np.linspace(start, stop, 2 + int(abs(stop - start) / 14)))
    points = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], 1)
    return _lean(points, lean) + centre


def _lean(points: Points, degrees: float) -> Points:
    """Turned counter-clockwise to the eye."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return points @ np.array([[c, -s], [s, c]])


_CLOUDS = (
    _arc((0, 0), (9, 3), 0, 360),
    _arc((-2, -2.5), (4, 3), 0, 360),
    _arc((3, -1.5), (3.5, 2.5), 0, 360),
)
_SPRIG = np.array([[-0.5, 0], [-1, -4], [1.5, -7.5], [5.5, -9], [5, -4.5], [2, 0]])


@cache
def _shapes(posture: str, bill: str) -> list[tuple[int, Points, int]]:
    """Part, corners and width of the outline, back to front, for a large bird that faces right.

    The origin lies between the feet; for a bird in flight it is the middle of the body.
    """
    flying = posture == "flying"
    lean, body = (8.0, np.array([-2.5, 0.0])) if flying else (36.0, np.array([-4.0, -15.5]))
    skull = body + (np.array([15.0, -6.5]) if flying else np.array([10.5, -13.0]))
    size = (15.5, 9.0) if flying else (15.0, 10.5)

    def on_body(*corners: tuple[float, float]) -> Points:
        return _lean(np.array(corners, float), lean) + body

    whole = _arc(tuple(body), size, 0, 360, lean)
    under = _arc(tuple(body), size, -35, 158, lean)
    belly = np.vstack([under, on_body((-9, 1.5), (2, 0.5), (9, -4.0))])
    tail = on_body((-9, -4), (-18, -3.5), (-27, -2.5), (-27.5, 3.5), (-18, 2.5), (-9, 5))
    round_head = _arc(tuple(skull), (8.2, 8.0), 0, 360)
    cap = np.vstack([_arc(tuple(skull), (8.2, 8.0), -188, -8), skull + np.array([2.5, -1.8])])
    eye = _arc((skull[0] + 3.0, skull[1] - 0.2), (1.5, 1.5), 0, 360)
    shapes = [(_BACK, tail, 7), (_BACK, whole, 7), (_BELLY, round_head, 7)]
    shapes.append((_BILL, _BILLS[bill] + skull, 5))
    if flying:
        far = on_body((9, -5), (14, -22), (11, -29), (5, -24), (0, -6))
        near = on_body(
            (6, -2), (5, -14), (-3, -29), (-7, -31), (-8, -25), (-12, -24), (-11, -18),
            (-13, -15), (-9, -9), (-6, -2), (0, 1),
        )  # fmt: skip
        shapes.insert(0, (_WING, far, 7))
    else:
        near = on_body(
            (8, -4), (5, -6.5), (-6, -6), (-20, -1.5), (-13, 2), (-4, 4.5), (5, 3), (9, 0)
        )
        legs = [
            np.array([[x, -7.0], [x + 1.6, -7], [x + 1.6, -1], [x + 4, 0.8], [x, 0.8]])
            for x in (-4.0, 1.5)
        ]
        shapes[:0] = [(_OUTLINE, leg, 0) for leg in legs]
    shapes += [(_BELLY, belly, 0), (_BELLY, round_head, 0), (_CROWN, cap, 0), (_EYE, eye, 0)]
    return [*shapes, (_WING, near, 3)]


_BILLS = {
    "short": np.array([[5.5, -2.4], [11.4, 0.6], [5.5, 3.2]]),
    "long": np.array([[5.5, -2.0], [19.5, 1.4], [19.5, 2.4], [5.5, 3.0]]),
    "hooked": np.array([[5.0, -3.6], [12, -3.8], [16, -0.6], [15.6, 7.4], [12.2, 4.2], [5.0, 4.8]]),
}
