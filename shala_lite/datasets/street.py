"""Street numbers that the project draws, in the place of SVHN's photographs.

A picture shows one digit upright in the middle and, as often as not, parts of its neighbours at
the left and right edges. The digits stand on a plate, in one of the fonts that come with
matplotlib. With the ink M in [0, 1], the plate's colour P, the digits' colour D and the light L,

    x = L (P (1 - M) + D M) + noise,    seen in perspective and slightly out of focus.

Either of P and D may be the brighter one, so no single pixel speaks for a digit: a linear
classifier fails, a convolutional one does not. Every picture has a style of its own. Fonts are
shared between splits, styles are not, since each split draws from a generator of its own.

As in ``textures``, only operations whose last bit IEEE arithmetic fixes are used, on integers of
FreeType. Another version of Pillow or matplotlib may still bring other glyphs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 32
FONTS = (
    *(f"DejaVuSans{kind}" for kind in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{kind}" for kind in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{kind}" for kind in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{kind}" for kind in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)
NOBODY = 10  # the neighbour where there is none
_BOX = 64  # pixels of the square in which a glyph lies
_HEIGHT = 44  # of a glyph, in pixels of its box
_FINE = 2  # each pixel is the mean of 2x2 finer ones
_KNOTS = 5  # of the lattice on which the light varies
_CHUNK = 500  # pictures painted at a time: bounds the memory beyond the result itself

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Styles = dict[str, NDArray]


def draw_streets(labels: Integers, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Styles]:
    """A street number for each label, in a style drawn without regard to it.

    Args:
        labels: (N,) digits, 0 to 9.
        rng: the only source of randomness.

    Returns:
        The pictures (N, 3, 32, 32) uint8, and their styles, as ``draw_styles`` gives them.

    Raises:
        ValueError: for a label that is no digit.
    """
    if len(labels) and (labels.min() < 0 or labels.max() > 9):
        raise ValueError(f"labels: from {labels.min()} to {labels.max()}, expected 0 to 9")
    styles = draw_styles(len(labels), rng)
    pictures = np.empty((len(labels), 3, SIDE, SIDE), np.uint8)
    for start in range(0, len(labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        own = {name: values[part] for name, values in styles.items()}
        x = _blur(_paint(_ink(labels[part], own), own), own["blur"])
        grain = rng.random((len(x), 2, *x.shape[1:]), np.float32)
        x += own["noise"][:, None, None, None] * (grain[:, 0] - grain[:, 1])
        pictures[part] = np.clip(x, 0, 1) * 255 + 0.5
    return pictures, styles


def draw_styles(count: int, rng: np.random.Generator) -> Styles:
    """All that tells pictures of one digit apart, {name: (N, ...)}.

    ``font`` is a position in ``FONTS``; ``left`` and ``right`` are the neighbours' digits or
    ``NOBODY``. Lengths are in pixels, colours and light in [0, 1].
    """

    def number(low: float, high: float, *shape: int) -> Floats:
        return low + (high - low) * rng.random((count, *shape), np.float32)

    def neighbour() -> Integers:
        return np.where(rng.random(count) < 0.6, rng.integers(10, size=count), NOBODY)

    dark = number(0.05, 0.55)
    bright = dark + number(0.25, 0.45)
    swapped = rng.random(count) < 0.5
    tints = number(-0.1, 0.1, 3, 3)
    return {
        "font": rng.integers(len(FONTS), size=count),
        "left": neighbour(),
        "right": neighbour(),
        "gap": number(1.0, 4.0),
        "height": number(15.0, 25.0),
        "stretch": number(0.75, 1.15),  # width against height
        "place": number(-2.0, 2.0, 2),
        "turn": number(-0.12, 0.12),  # tangent of half the angle
        "slant": number(-0.2, 0.2),
        "tilt": number(-0.012, 0.012, 2),  # perspective, a pixel
        "weight": number(-0.12, 0.16),  # of the strokes
        "plate": (np.where(swapped, bright, dark)[:, None] + tints[:, 0]).astype(np.float32),
        "digit": (np.where(swapped, dark, bright)[:, None] + tints[:, 1]).astype(np.float32),
        "wall": number(0.1, 0.9)[:, None] + tints[:, 2],
        "margin": np.where(rng.random(count) < 0.5, number(1.5, 6.0), 99).astype(np.float32),
        "shadow": np.where(rng.random(count) < 0.4, number(0.1, 0.4), 0).astype(np.float32),
        "light": number(0.75, 1.15, _KNOTS, _KNOTS),
        "slope": number(-0.25, 0.25, 2),
        "blur": number(0.0, 1.0, 3),
        "noise": number(0.0, 0.08),
    }


def _ink(digits: Integers, style: Styles) -> tuple[Floats, Floats]:
    """How much of each fine pixel is ink, and how much is plate, both (N, 64, 64) in [0, 1]."""
    glyphs, widths = _glyphs()
    across, down = _on_the_plate(style)
    first = style["font"] * (NOBODY + 1)
    middle, left, right = (first + who for who in (digits, style["left"], style["right"]))
    pixel = _HEIGHT / style["height"]  # of the picture, in pixels of a glyph's box
    half = [(widths[who] + style["gap"] * pixel) / 2 for who in (middle, left, right)]
    a, b, c = (h[:, None, None] for h in half)
    # Which of the three digits is here, and where its box lies.
    glyph = np.where(across < -a, left[:, None, None], middle[:, None, None])
    glyph = np.where(across > a, right[:, None, None], glyph)
    column = np.where(across < -a, across + a + b, across)
    column = np.where(across > a, across - a - c, column)
    rows, columns = (
        np.clip(np.floor(at + _BOX / 2), 0, _BOX - 1).astype(np.int64) for at in (down, column)
    )
    ink = glyphs.reshape(-1)[(glyph * _BOX + rows) * _BOX + columns]
    ink = np.clip((ink - 0.5 + style["weight"][:, None, None]) * 2.0 + 0.5, 0, 1)
    edge = (_HEIGHT / 2 + (style["margin"] * pixel)[:, None, None] - abs(down)) / 2
    return ink, np.clip(edge, 0, 1)


def _on_the_plate(style: Styles) -> tuple[Floats, Floats]:
    """Where on the plate each fine pixel looks, across and down, (N, 64, 64), in glyph pixels.

    The turn by an angle of tangent-half t has the cosine (1 - tt) / (1 + tt) and the sine
    2t / (1 + tt).
    """
    line = (np.arange(SIDE * _FINE, dtype=np.float32) + 0.5) / _FINE - SIDE / 2
    at = {name: style[name][:, None, None] for name in ("turn", "slant", "height", "stretch")}
    x = line[None, None, :] - style["place"][:, 0, None, None]
    y = line[None, :, None] - style["place"][:, 1, None, None]
    far = 1 + style["tilt"][:, 0, None, None] * x + style["tilt"][:, 1, None, None] * y
    scale = _HEIGHT / (at["height"] * far * (1 + at["turn"] * at["turn"]))
    cosine, sine = 1 - at["turn"] * at["turn"], 2 * at["turn"]
    across, down = (cosine * x + sine * y) * scale, (cosine * y - sine * x) * scale
    return (across + at["slant"] * down) / at["stretch"], down


def _paint(ink_and_plate: tuple[Floats, Floats], style: Styles) -> Floats:
    """Colour, shadow and light: pictures (N, 3, 32, 32), about in [0, 1]."""
    fine, plate = ink_and_plate
    shade = np.zeros_like(fine)
    shade[:, 2:, 2:] = fine[:, :-2, :-2]  # one pixel down and to the right
    ink, plate, shade = (_coarse(x)[:, None] for x in (fine, plate, shade))
    wall, ground, digit = (style[name][:, :, None, None] for name in ("wall", "plate", "digit"))
    x = wall + (ground - wall) * plate
    x = x * (1 - style["shadow"][:, None, None, None] * shade)
    x = x + (digit - x) * ink
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    slope = style["slope"][:, :, None, None]
    light = (
        _smooth(style["light"]) + slope[:, 0] * (line - 0.5) + slope[:, 1] * (line - 0.5)[:, None]
    )
    return x * light[:, None]


def _coarse(fine: Floats) -> Floats:
    """The mean of each 2x2 fine pixels."""
    rows = fine[:, ::2] + fine[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) / 4


def _smooth(knots: Floats) -> Floats:
    """Values on a lattice (N, K, K), interpolated between its knots: (N, 32, 32)."""
    place = np.arange(SIDE, dtype=np.float32) * ((_KNOTS - 1) / SIDE)
    at = place.astype(np.int64)
    t = place - at.astype(np.float32)
    t = t * t * (3 - 2 * t)
    rows = knots[:, at] * (1 - t)[:, None] + knots[:, at + 1] * t[:, None]
    return rows[:, :, at] * (1 - t) + rows[:, :, at + 1] * t


def _blur(x: Floats, strength: Floats) -> Floats:
    """Weights 1, 2, 1 over 4 down and across, mixed in by each strength (N, K) in [0, 1]."""
    for share in strength.T[:, :, None, None, None]:
        y = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        y = (y[:, :, :-2] + 2 * y[:, :, 1:-1] + y[:, :, 2:]) / 4
        y = (y[..., :-2] + 2 * y[..., 1:-1] + y[..., 2:]) / 4
        x = x + share * (y - x)
    return x


@cache
def _glyphs() -> tuple[Floats, Floats]:
    """Ink (F * 11, 64, 64) in [0, 1] of the ten digits and of nobody in each font; widths."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = f"{matplotlib.get_data_path()}/fonts/ttf"
    glyphs = np.zeros((len(FONTS), NOBODY + 1, _BOX, _BOX), np.float32)
    widths = np.full((len(FONTS), NOBODY + 1), _HEIGHT / 2, np.float32)
    for f, name in enumerate(FONTS):
        # The basic layout is the same with and without the libraries that shape scripts.
        basic = ImageFont.Layout.BASIC
        at_hundred = ImageFont.truetype(f"{folder}/{name}.ttf", 100, layout_engine=basic)
        _, top, _, bottom = at_hundred.getbbox("0")
        font = at_hundred.font_variant(size=round(100 * _HEIGHT / (bottom - top)))
        for digit in range(10):
            left, top, right, bottom = font.getbbox(str(digit))
            canvas = Image.new("L", (_BOX, _BOX))
            corner = ((_BOX - left - right) // 2, (_BOX - top - bottom) // 2)
            ImageDraw.Draw(canvas).text(corner, str(digit), fill=255, font=font)
            glyphs[f, digit] = np.asarray(canvas, np.float32) / 255
            widths[f, digit] = right - left
    pools = glyphs.reshape(-1, _BOX, _BOX), widths.reshape(-1)
    for pool in pools:
        pool.setflags(write=False)  # shared by every caller
    return pools
