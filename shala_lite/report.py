"""Tables for a chapter: what this run measured, and what larger runs did.

Numbers come from a run or from published results, never from a chapter's text, and a table says
which. Every table is HTML inside the page, with a plain-text stand-in.
"""

from __future__ import annotations

import html
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .keys import KEYS
from .pages import CAPTION, Page, figure
from .publish import published
from .runs import Run, split_metric
from .training import History

SCALES = ("full", "laptop")  # what a chapter quotes, in this order
UNBROKEN = 16  # letters of a row's name that stay on one line; on a phone longer ones do not fit
COUNTS = ("evaluations per sample", "items", "numbers")  # units of whole numbers
ARROWS = {
    "higher": "\u00a0↑",
    "lower": "\u00a0↓",
    "neither": "",
}  # kept on the line of the last word


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], *, caption: str = "") -> Page:
    """A table of text cells; the first column names the row.

    Raises:
        ValueError: a row that has not as many cells as the header.
    """
    lines = [[str(cell) for cell in row] for row in rows]
    names = [str(cell) for cell in header]
    for line in lines:
        if len(line) != len(names):
            raise ValueError(f"row {line} has {len(line)} cells; expected {len(names)}")

    def cells(line: list[str], tag: str, scope: str) -> str:
        first, *others = (html.escape(cell) for cell in line)
        style = "padding:0.2em 0.45em;text-align:"
        rest = "".join(f'<{tag} style="{style}right;">{cell}</{tag}>' for cell in others)
        short = scope == "row" and len(first) <= UNBROKEN
        start = f"{style}left;" + ("white-space:nowrap;" if short else "")
        return f'<tr><th scope="{scope}" style="{start}">{first}</th>{rest}</tr>'

    below = f'<figcaption style="{CAPTION}">{html.escape(caption)}</figcaption>' if caption else ""
    page = (
        '<figure class="shala-table" style="margin:1em 0;"><div style="overflow-x:auto;">'
        f'<table style="margin:0;"><thead>{cells(names, "th", "col")}</thead>'
        f"<tbody>{''.join(cells(line, 'td', 'row') for line in lines)}</tbody></table></div>"
        f"{below}</figure>"
    )
    widths = [max(len(line[i]) for line in [names, *lines]) for i in range(len(names))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [names, *lines]
    )
    return Page(lambda: page, f"{text}\n{caption}".rstrip())


def numbers(
    rows: Mapping[str, Mapping[Any, float]], *, caption: str = "", form: str = ".3f"
) -> Page:
    """A table of {row: {column: number}}; columns are those of the first row.

    `-` stands for NaN, and for a number that a row lacks.
    """
    if not rows:
        raise ValueError("rows is empty; expected {row: {column: number}}")
    columns = list(next(iter(rows.values())))

    def cell(value: float) -> str:
        return "-" if math.isnan(value) else format(value, f"z{form}")  # z: no -0

    body = [
        [name.replace("_", " "), *(cell(row.get(key, math.nan)) for key in columns)]
        for name, row in rows.items()
    ]
    return table(["", *(str(key).replace("_", " ") for key in columns)], body, caption=caption)


def trainings(histories: Mapping[str, History]) -> Page:
    """Steps and seconds of each training {label: history}.

    A variant is named without its settings, unless it was trained with several.
    """
    short = {label: label.split(" (")[0] for label in histories}
    names = [*short.values()]
    rows = {
        short[label] if names.count(short[label]) == 1 else label: {
            "steps": found.steps[-1],
            "seconds": found.seconds,
        }
        for label, found in histories.items()
    }
    return numbers(rows, form=".0f", caption="What each training took, in seconds of the clock.")


def scores(
    run: Run, variants: Sequence[str], keys: Sequence[str], *, note: str = "", form: str = ".3f"
) -> Page:
    """What a run has recorded: a row for each variant, a column for each key, `-` where nothing.

    An arrow says which direction is better. A key may carry a slice: `judge_accuracy@m0`.
    """
    values = {name: format(value, _form(name, form)) for name, value in run.metrics.items()}
    p = run.parameters
    origin = (
        f"{p['dataset']}, {p['source']} data, profile {p['profile']}, seed {p['seed']}, 1 seed."
    )
    return _matrix(values, variants, keys, f"{note} {origin}".strip())


def at_full_scale(
    chapter: str,
    dataset: str,
    *tables: tuple[Sequence[str], Sequence[str]],
    source: str = "real",
    images: Mapping[str, str] | None = None,
    form: str = ".3f",
    book: Path | None = None,
) -> Page:
    """The same numbers from published runs on data of `source`, and which runs those are.

    The tables of the full runs, then those of the smaller runs at laptop, each scale with one note
    below its last table. Without full runs the note says so. A row or a key of which the runs have
    no number is left out.

    Args:
        tables: (variants, keys) of each table.
        images: {name of a published image: alternative text}, from the first runs that have it.
    """
    scales = [published(chapter, dataset, source, profile, book) for profile in SCALES]
    found = [runs for runs in scales if runs]
    if not found:
        words = f"No run on {source} data has been published yet, full or laptop."
        return Page(lambda: f"<p>{words}</p>", words)
    say = "" if scales[0] else "No run at full scale has been published yet; this one is smaller."
    parts = []
    for runs in found:
        kept = [table for each in tables if (table := _recorded(runs.metrics, *each))[0]]
        for k, (rows, keys) in enumerate(kept, 1):
            names = [f"{v}/{key}" for v in rows for key in keys if f"{v}/{key}" in runs.metrics]
            values = {name: runs.text(name, _form(name, form)) for name in names}
            note = f"{say} {runs.origin}.".strip() if k == len(kept) else ""
            parts.append(_matrix(values, rows, keys, note))
    if not parts:
        words = f"No published run has these numbers yet. {found[0].origin}."
        parts = [Page(lambda: f"<p>{html.escape(words)}</p>", words)]
    for name, alt in (images or {}).items():
        having = next((runs for runs in found if name in runs.images), None)
        if having:
            image = _read(having.images[name])
            parts.append(figure(image, alt=alt, caption=f"{having.images_origin}."))
    return Page(lambda: "".join(p.html for p in parts), "\n".join(p.text for p in parts))


def _recorded(
    metrics: Container[str], variants: Sequence[str], keys: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The variants, and the keys, of which there is at least one number."""
    rows = [v for v in variants if any(f"{v}/{key}" in metrics for key in keys)]
    return rows, [key for key in keys if any(f"{v}/{key}" in metrics for v in rows)]


def _form(name: str, form: str) -> str:
    """How to print a metric: without decimals where it counts."""
    key = KEYS.get(split_metric(name)[1])
    return ".0f" if key is not None and key.unit in COUNTS else form


def _matrix(
    values: Mapping[str, str], variants: Sequence[str], keys: Sequence[str], caption: str
) -> Page:
    header = [""]
    for key in keys:
        name, _, part = key.partition("@")
        if name not in KEYS:
            raise ValueError(f"key {key!r} is not registered; expected one of {sorted(KEYS)}")
        words = name.replace("_", " ") + (f" ({part.replace('_', ' ')})" if part else "")
        header.append(words + ARROWS[KEYS[name].direction])
    rows = [
        [variant.replace("_", " "), *(values.get(f"{variant}/{key}", "-") for key in keys)]
        for variant in variants
    ]
    return table(header, rows, caption=caption)


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
