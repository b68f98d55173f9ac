"""Pictures on a page, each with alternative text and a caption.

A picture becomes HTML with the image inside it, so that a page needs nothing from elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

FIGURE_SCALE = 2  # stored pixels per displayed one: letters stay sharp on dense screens
PALETTE_ERROR = 0.3
CANVAS = "background:#fff;border-radius:8px;max-width:100%;height:auto;"
CAPTION = "color:inherit;font-size:0.9em;line-height:1.4;margin-top:0.5em;text-align:left;"


class Page:
    """HTML that a notebook displays and a book page keeps, with a plain-text stand-in."""

    def __init__(self, render: Callable[[], str], text: str) -> None:
        self._render, self.text = render, text

    @property
    def html(self) -> str:
        """The HTML; ids in it are new each time, so that it may stand twice on a page."""
        return self._render()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def described(alt: str, caption: str) -> tuple[str, str]:
    """Alternative text and caption, escaped for HTML; both must say something."""
    for name, value in (("alt", alt), ("caption", caption)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} is {value!r}; expected words: every picture needs them")
    return html.escape(" ".join(alt.split())), html.escape(" ".join(caption.split()), quote=False)


def pixels(picture: Figure | np.ndarray, scale: float = 1) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of a figure, or of an array (H, W), (H, W, 1) or (H, W, 3) uint8.

    Args:
        picture: what to turn into pixels. A figure is closed afterwards.
        scale: of a figure's resolution.
    """
    if isinstance(picture, Figure):
        buffer = io.BytesIO()
        options = {"compress_level": 1}  # only passing through
        picture.savefig(buffer, format="png", dpi=picture.dpi * scale, pil_kwargs=options)
        rgb = np.asarray(Image.open(buffer).convert("RGB"))
        _close(picture)
        return rgb
    array = np.asarray(picture)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.shape[2:] or (1,))[0]
        not in (
            1,
            3,
        )
    ):
        raise ValueError(
            f"picture is {array.dtype} {array.shape}; expected a figure or uint8 (H, W[, 1 or 3])"
        )
    grey = array.reshape(*array.shape[:2], -1)
    return np.broadcast_to(grey, (*grey.shape[:2], 3))


def _close(figure: Figure) -> None:
    """Forgets a figure made by pyplot, so that a notebook does not show it a second time."""
    if figure.canvas.manager is not None:
        import matplotlib.pyplot as plt

        plt.close(figure)


def data_uri(array: np.ndarray) -> str:
    """An image (H, W, 3) uint8 as a `data:` address, in PNG.

    A palette of 256 colours makes charts half as large. It is used where nobody would see it: where
    the mean error is below `PALETTE_ERROR` levels of 255. Photographs keep their colours.
    """
    image = Image.fromarray(np.ascontiguousarray(array))
    palette = image.quantize(256, dither=Image.Dither.NONE)
    error = np.asarray(palette.convert("RGB")).astype(np.int16) - array
    buffer = io.BytesIO()
    chosen = palette if np.abs(error).mean() < PALETTE_ERROR else image
    chosen.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def image_tag(
    address: str, alt: str, width: int, height: int, *, crisp: bool, shown: bool = True
) -> str:
    """An `<img>` of `width` x `height` displayed pixels, smaller where the page is narrower."""
    style = f"display:{'block' if shown else 'none'};{CANVAS}"
    style += "image-rendering:pixelated;" if crisp else ""
    return f'<img src="{address}" alt="{alt}" width="{width}" height="{height}" style="{style}">'


def figure(picture: Figure | np.ndarray, *, alt: str, caption: str, zoom: int = 1) -> Page:
    """A picture for the page, with what it shows in words and what to see in it.

    Args:
        picture: a matplotlib figure, which is closed, or an array as in `pixels`.
        alt: the picture in words, for those who do not see it.
        caption: what to see. Mathematics goes between \\\\( and \\\\).
        zoom: displayed pixels per pixel of an array.

    Raises:
        ValueError: no alt or no caption.
    """
    words, below = described(alt, caption)
    drawn = isinstance(picture, Figure)
    scale = FIGURE_SCALE if drawn else 1
    image = pixels(picture, scale)
    height, width = (round(side * zoom / scale) for side in image.shape[:2])
    shown = image_tag(data_uri(image), words, width, height, crisp=not drawn and zoom > 1)
    page = (
        f'<figure class="shala-figure" style="margin:1em 0;">{shown}'
        f'<figcaption class="tex2jax_process mathjax_process" style="{CAPTION}">{below}'
        "</figcaption></figure>"
    )
    return Page(lambda: page, f"Figure: {caption}\n[{alt}]")
