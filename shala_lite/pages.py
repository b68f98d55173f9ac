"""Pictures on a page: each with alternative text and a caption, and sliders over many of them.

A picture becomes HTML with the image inside it, so that a page needs nothing from elsewhere. In a
rendered page a slider is an `<input type="range">` over frames drawn beforehand; where a kernel
is alive (`make lab` sets SHALA_LIVE=1), it is a widget that draws the frame that is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

FIGURE_SCALE = 2  # stored pixels per displayed one: letters stay sharp on dense screens
PALETTE_ERROR = 0.3
CANVAS = "background:#fff;border-radius:8px;max-width:100%;height:auto;"
CAPTION = "color:inherit;font-size:0.9em;line-height:1.4;margin-top:0.5em;text-align:left;"

_numbers = itertools.count(1)


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


def _described(alt: str, caption: str) -> tuple[str, str]:
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


def _image(
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
    words, below = _described(alt, caption)
    drawn = isinstance(picture, Figure)
    scale = FIGURE_SCALE if drawn else 1
    image = pixels(picture, scale)
    height, width = (round(side * zoom / scale) for side in image.shape[:2])
    shown = _image(data_uri(image), words, width, height, crisp=not drawn and zoom > 1)
    page = (
        f'<figure class="shala-figure" style="margin:1em 0;">{shown}'
        f'<figcaption class="tex2jax_process mathjax_process" style="{CAPTION}">{below}'
        "</figcaption></figure>"
    )
    return Page(lambda: page, f"Figure: {caption}\n[{alt}]")


SCRIPT = """(function () {
  var root = document.getElementById("ID"), range = root.querySelector("input");
  var frames = root.querySelectorAll("img"), output = root.querySelector("output");
  var labels = LABELS;
  function show() {
    var at = Number(range.value);
    frames.forEach(function (frame, i) { frame.style.display = i === at ? "block" : "none"; });
    range.setAttribute("aria-valuetext", labels[at]);
    output.textContent = labels[at];
  }
  range.addEventListener("input", show);
  show();
})();"""


def slider(
    frames: Sequence[Figure | np.ndarray],
    labels: Sequence[str],
    *,
    alt: str,
    caption: str,
    label: str = "noise level",
    start: int = 0,
    zoom: int = 1,
) -> Page:
    """A labelled range over frames drawn beforehand: works in a rendered page, without a kernel.

    Arrow keys, Home and End move it. Without scripts the first frame shown stays.

    Args:
        frames: figures, which are closed, or arrays as in `pixels`, all of one size.
        labels: what to call each frame, such as "t = 0.50".
        alt: what all frames show, in words; each frame's label is added.
        caption: what to see when it moves.
        label: what the slider varies.
        start: the frame shown first.
        zoom: displayed pixels per pixel of an array.

    Raises:
        ValueError: no frames, frames of several sizes, labels that do not match, no alt or caption.
    """
    words, below = _described(alt, caption)
    if not frames or len(frames) != len(labels):
        raise ValueError(f"{len(frames)} frames and {len(labels)} labels; expected as many, not 0")
    if not 0 <= start < len(frames):
        raise ValueError(f"start is {start}; expected 0 to {len(frames) - 1}")
    crisp = zoom > 1 and not isinstance(frames[0], Figure)
    images = [pixels(frame) for frame in frames]
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise ValueError(f"frames have sizes {sorted(sizes)}; expected one size")
    height, width = (side * zoom for side in images[0].shape[:2])
    names = [html.escape(str(text)) for text in labels]
    name = html.escape(label)
    addresses = [data_uri(image) for image in images]
    digest = hashlib.sha256("".join([*addresses, *names]).encode()).hexdigest()[:8]

    def render() -> str:
        identity = f"shala-slider-{digest}-{next(_numbers)}"
        stack = "".join(
            _image(
                address, f"{words} ({name}: {text})", width, height, crisp=crisp, shown=i == start
            )
            for i, (address, text) in enumerate(zip(addresses, names, strict=True))
        )
        script = SCRIPT.replace("ID", identity).replace("LABELS", _script_json(list(labels)))
        return (
            f'<figure class="shala-slider" id="{identity}" style="margin:1em 0;">{stack}'
            '<div style="display:flex;flex-wrap:wrap;gap:0.3em 0.8em;align-items:center;'
            f'max-width:{max(width, 280)}px;margin-top:0.4em;">'
            f'<label for="{identity}-range" style="margin:0;">{name}</label>'
            f'<input type="range" id="{identity}-range" min="0" max="{len(frames) - 1}" step="1" '
            f'value="{start}" aria-valuetext="{names[start]}" '
            'style="flex:1 1 10em;min-height:2em;accent-color:#0072B2;cursor:pointer;">'
            f'<output for="{identity}-range" aria-live="polite" style="min-width:6em;'
            f'font-variant-numeric:tabular-nums;">{names[start]}</output></div>'
            f'<figcaption class="tex2jax_process mathjax_process" style="{CAPTION}">{below}'
            f"</figcaption><script>{script}</script></figure>"
        )

    return Page(render, f"Slider over {label}, {len(frames)} frames: {caption}\n[{alt}]")


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value).replace("<", "\\u003c")


def widget_slider(
    draw: Callable[[int], Figure | np.ndarray],
    labels: Sequence[str],
    *,
    alt: str,
    caption: str,
    label: str = "noise level",
    start: int = 0,
    zoom: int = 1,
) -> Any:
    """The same slider as a widget of a live kernel, which draws the frame that is asked for.

    Args:
        draw: gives frame i.
        labels, alt, caption, label, start, zoom: as in `slider`.

    Returns:
        An ipywidgets box; `.children[0]` is the slider, `.children[1]` the picture.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("a live slider needs ipywidgets: pip install -e '.[book]'") from error
    _described(alt, caption)
    options = [(str(text), i) for i, text in enumerate(labels)]
    control = ipywidgets.SelectionSlider(
        options=options,
        index=start,
        description=label,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="min(100%, 640px)"),
    )
    picture = ipywidgets.HTML()

    def show(change: Any = None) -> None:
        at = control.index
        words = f"{alt} ({label}: {labels[at]})"
        picture.value = figure(draw(at), alt=words, caption=caption, zoom=zoom).html

    control.observe(show, names="index")
    show()
    return ipywidgets.VBox([control, picture])


def explore(
    frames: Sequence[Figure | np.ndarray] | Callable[[int], Figure | np.ndarray],
    labels: Sequence[str],
    *,
    live: bool | None = None,
    **options: Any,
) -> Any:
    """The slider that suits the place: a widget where a front end is alive, else a rendered one.

    Args:
        frames: the frames, or a function that draws frame i.
        labels: as in `slider`.
        live: whether a live front end is there; None asks the variable SHALA_LIVE.
        options: `alt`, `caption`, `label`, `start`, `zoom`, as in `slider`.
    """
    live = os.environ.get("SHALA_LIVE") == "1" if live is None else live
    if live:
        return widget_slider(frames if callable(frames) else frames.__getitem__, labels, **options)
    if callable(frames):
        frames = [frames(i) for i in range(len(labels))]
    return slider(frames, labels, **options)
