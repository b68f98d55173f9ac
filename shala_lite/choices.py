"""Pictures that the reader chooses from: ranges and selects over frames.

In a rendered page the frames are drawn beforehand, and a script shows the one that is asked for.
Where a kernel is alive (`make lab` sets SHALA_LIVE=1), widgets draw it anew, and may offer more.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .pages import CAPTION, Page, data_uri, described, figure, image_tag, pixels

Picture = Figure | np.ndarray

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Control:
    """Something that the reader may choose.

    Args:
        label: what it is.
        options: {how the page calls it: its value}, or values that are called as they print.
        kind: `range` for what has an order, `select` for what has none.
        start: the position of the option shown first.
        live: more options for a live kernel, in place of `options`; the start is the same value.

    Raises:
        ValueError: no option, two of one name, another kind, or a start beyond the options.
    """

    label: str
    options: Mapping[str, Any] | Sequence[Any]
    kind: str = "range"
    start: int = 0
    live: Mapping[str, Any] | Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("range", "select"):
            raise ValueError(f"kind is {self.kind!r}; expected 'range' or 'select'")
        for options in (self.options, self.options if self.live is None else self.live):
            if not options or len(dict(_pairs(options))) != len(options):
                raise ValueError(f"{self.label}: {list(options)}; expected distinct names, not 0")
        if not 0 <= self.start < len(self.options):
            raise ValueError(f"start is {self.start}; expected 0 to {len(self.options) - 1}")

    def named(self, live: bool = False) -> dict[str, Any]:
        """{name: value}, in order."""
        return dict(_pairs(self.options if self.live is None or not live else self.live))

    @property
    def first(self) -> Any:
        """The value shown first."""
        return list(self.named().values())[self.start]


def _pairs(options: Mapping[str, Any] | Sequence[Any]) -> list[tuple[str, Any]]:
    if isinstance(options, Mapping):
        return [(str(name), value) for name, value in options.items()]
    return [(str(value), value) for value in options]


SCRIPT = """(function () {
  var root = document.getElementById("ID"), frames = root.querySelectorAll("img");
  var controls = root.querySelectorAll("input, select"), labels = LABELS;
  function show() {
    var at = 0;
    controls.forEach(function (control, i) {
      var chosen = Number(control.value), output = control.parentNode.querySelector("output");
      at = at * labels[i].length + chosen;
      if (output) {
        control.setAttribute("aria-valuetext", labels[i][chosen]);
        output.textContent = labels[i][chosen];
      }
    });
    frames.forEach(function (frame, i) { frame.style.display = i === at ? "block" : "none"; });
  }
  controls.forEach(function (control) { control.addEventListener("input", show); });
  show();
})();"""
ROW = "display:flex;flex-wrap:wrap;gap:0.3em 0.8em;align-items:center;margin-top:0.4em;"


def rendered(
    frames: Sequence[Picture],
    controls: Sequence[Control],
    *,
    alt: str,
    caption: str,
    zoom: int = 1,
) -> Page:
    """Labelled ranges and selects over frames drawn beforehand: works without a kernel.

    The keyboard moves them. Without scripts the frame shown first stays.

    Args:
        frames: one for each combination of options, the last control's varying fastest; figures,
            which are closed, or arrays as in `pages.pixels`, all of one size.
        controls: what chooses among them.
        alt: what all frames show, in words; the chosen options are added.
        caption: what to see when something else is chosen.
        zoom: displayed pixels per pixel of an array.

    Raises:
        ValueError: frames of several sizes, not as many as combinations, no alt or caption.
    """
    words, below = described(alt, caption)
    labels = [list(control.named()) for control in controls]
    combinations = list(itertools.product(*labels))
    if len(frames) != len(combinations):
        raise ValueError(
            f"{len(frames)} frames and {len(combinations)} labels; expected as many of both"
        )
    crisp = zoom > 1 and not isinstance(frames[0], Figure)
    images = [pixels(frame) for frame in frames]
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise ValueError(f"frames have sizes {sorted(sizes)}; expected one size")
    height, width = (side * zoom for side in images[0].shape[:2])
    addresses = [data_uri(image) for image in images]
    names = [control.label for control in controls]
    says = [html.escape(_told(names, chosen)) for chosen in combinations]
    digest = hashlib.sha256("".join([*addresses, *says]).encode()).hexdigest()[:8]
    first = int(np.ravel_multi_index([c.start for c in controls], [len(x) for x in labels]))

    def render() -> str:
        identity = f"shala-slider-{digest}-{next(_numbers)}"
        stack = "".join(
            image_tag(address, f"{words} ({said})", width, height, crisp=crisp, shown=i == first)
            for i, (address, said) in enumerate(zip(addresses, says, strict=True))
        )
        rows = "".join(
            _row(control, f"{identity}-{i}", max(width, 420)) for i, control in enumerate(controls)
        )
        script = SCRIPT.replace("ID", identity).replace("LABELS", _script_json(labels))
        return (
            f'<figure class="shala-slider" id="{identity}" style="margin:1em 0;">{stack}{rows}'
            f'<figcaption class="tex2jax_process mathjax_process" style="{CAPTION}">{below}'
            f"</figcaption><script>{script}</script></figure>"
        )

    what = ", ".join(names)
    return Page(render, f"Slider over {what}, {len(frames)} frames: {caption}\n[{alt}]")


def _told(names: Sequence[str], chosen: Sequence[str]) -> str:
    return ", ".join(f"{name}: {text}" for name, text in zip(names, chosen, strict=True))


def _row(control: Control, identity: str, width: int) -> str:
    """A control with its label, `width` displayed pixels wide at most."""
    texts = [html.escape(text) for text in control.named()]
    label = f'<label for="{identity}" style="margin:0;">{html.escape(control.label)}</label>'
    if control.kind == "select":
        options = "".join(
            f'<option value="{i}"{" selected" if i == control.start else ""}>{text}</option>'
            for i, text in enumerate(texts)
        )
        chooser = (
            f'<select id="{identity}" style="flex:1 1 8em;min-height:2em;font:inherit;'
            f'cursor:pointer;">{options}</select>'
        )
    else:
        chooser = (
            f'<input type="range" id="{identity}" min="0" max="{len(texts) - 1}" step="1" '
            f'value="{control.start}" aria-valuetext="{texts[control.start]}" '
            'style="flex:1 1 8em;min-height:2em;accent-color:#0072B2;cursor:pointer;">'
            f'<output for="{identity}" aria-live="polite" style="min-width:4em;'
            f'font-variant-numeric:tabular-nums;">{texts[control.start]}</output>'
        )
    return f'<div style="{ROW}max-width:{width}px;">{label}{chooser}</div>'


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value).replace("<", "\\u003c")


def widgets(
    draw: Callable[..., Picture],
    controls: Sequence[Control],
    *,
    alt: str,
    caption: str,
    zoom: int = 1,
) -> Any:
    """The same as widgets of a live kernel, which draws the frame that is asked for.

    Args:
        draw: gives the frame of the chosen values, one argument for each control.
        controls, alt, caption, zoom: as in `rendered`.

    Returns:
        An ipywidgets box: a child for each control, and last the picture.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("a live slider needs ipywidgets: pip install -e '.[book]'") from error
    described(alt, caption)
    choosers, named = [], [control.named(live=True) for control in controls]
    for control, options in zip(controls, named, strict=True):
        kind = ipywidgets.Dropdown if control.kind == "select" else ipywidgets.SelectionSlider
        values = list(options.values())
        chooser = kind(
            options=list(options),
            index=values.index(control.first) if control.first in values else 0,
            description=control.label,
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="min(100%, 640px)"),
        )
        choosers.append(chooser)
    picture = ipywidgets.HTML()

    def show(change: Any = None) -> None:
        texts = [chooser.value for chooser in choosers]
        values = [options[text] for options, text in zip(named, texts, strict=True)]
        words = f"{alt} ({_told([control.label for control in controls], texts)})"
        picture.value = figure(draw(*values), alt=words, caption=caption, zoom=zoom).html

    for chooser in choosers:
        chooser.observe(show, names="index")
    show()
    return ipywidgets.VBox([*choosers, picture])


def explore(
    draw: Callable[..., Picture] | Sequence[Picture],
    controls: Sequence[Control] | Sequence[str],
    *,
    live: bool | None = None,
    label: str = "noise level",
    start: int = 0,
    **options: Any,
) -> Any:
    """What suits the place: widgets where a front end is alive, else a rendered page.

    In a page a control with a single option is fixed, and not shown.

    Args:
        draw: gives the frame of the chosen values, one argument for each control. With labels in
            place of controls: of a position, or the frames themselves.
        controls: what the reader may choose; or the labels of one range over positions.
        live: whether a live front end is there; None asks the variable SHALA_LIVE.
        label, start: of that one range.
        options: `alt`, `caption`, `zoom`, as in `rendered`.
    """
    live = os.environ.get("SHALA_LIVE") == "1" if live is None else live
    given = list(controls)
    asked: list[Control] = [c for c in given if isinstance(c, Control)]
    if len(asked) != len(given) or not given:
        labels = [str(text) for text in given]
        if (not callable(draw) and len(draw) != len(labels)) or not labels:
            count = len(labels) if callable(draw) else len(draw)
            raise ValueError(f"{count} frames and {len(labels)} labels; expected as many, not 0")
        asked = [Control(label, dict(zip(labels, range(len(labels)))), start=start)]
    make = draw if callable(draw) else draw.__getitem__
    if live:
        return widgets(make, asked, **options)
    values = itertools.product(*(control.named().values() for control in asked))
    shown = [control for control in asked if len(control.options) > 1] or asked[:1]
    return rendered([make(*chosen) for chosen in values], shown, **options)
