"""Charts and image grids in one style. Arrays come in, figures go out; no model is seen here.

Every function takes NumPy arrays or tensors and returns a matplotlib `Figure` that pyplot does not
know of, so nothing is shown twice or kept. Pass it to `figure(...)` with alternative text and a
caption to put it on the page.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .choices import Control as Control
from .choices import explore as explore
from .pages import Page as Page
from .pages import figure as figure
from .pictures import array
from .pictures import image_grid as image_grid
from .pictures import mosaic as mosaic
from .pictures import side_by_side as side_by_side

STYLE = Path(__file__).with_name("shala.mplstyle")
INK, MUTED = "#333333", "#777777"

# Okabe and Ito (2008); grey and brown complete ten classes.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW, BLACK = "#56B4E9", "#D55E00", "#F0E442", "#000000"
GREY, BROWN = "#999999", "#7F4A1E"
CLASS_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, BLACK, GREY, BROWN)

# One colour for one variant, in every chapter. Variants that share a chart differ.
VARIANT_COLOURS = {
    "prior": BLUE,
    "standard_normal": ORANGE,
    "gaussian_mixture": GREEN,
    "oracle": BLACK,
    "judge": MUTED,
    "floor": "#BBBBBB",
    "concat": BLUE,
    "sum": PURPLE,
    "attention": SKY,
    "poe": VERMILION,
    "moe": ORANGE,
    "mopoe": BROWN,
    "mmvaeplus": GREEN,
    "multivae_mvtcae": SKY,
    "nfe_8": SKY,
    "euler": SKY,
    "heun": BLUE,
    "dpmpp_2m": GREEN,
    "ancestral": PURPLE,
    "flow_map": VERMILION,
}
VARIANT_COLOURS |= dict(base=BLUE, transformer=BROWN, noise=VERMILION, any_subset=PURPLE)
VARIANT_COLOURS |= dict(variance_preserving=GREEN, one_source=SKY, tuned=BLACK)


def use_style() -> None:
    """Loads the book's style, `shala.mplstyle`, for all figures that follow."""
    matplotlib.style.use(STYLE)


def variant_colour(variant: str) -> str:
    """The colour of a variant: its own, else that of the part before `+`, else one by its name."""
    for name in (variant, variant.split("+")[0]):
        if name in VARIANT_COLOURS:
            return VARIANT_COLOURS[name]
    return CLASS_COLOURS[crc32(variant.encode()) % len(CLASS_COLOURS)]


def coherence_matrix(
    matrix: Any,
    names: Sequence[str],
    *,
    title: str = "",
    rows: str = "given",
    columns: str = "generated",
) -> Figure:
    """Heat map of shares in [0, 1] (M, M) with the number in each cell; NaN stays empty."""
    matrix = array(matrix)
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"matrix has shape {matrix.shape}; expected {(len(names), len(names))}")
    side = 0.62 * len(names) + 0.4
    figure = Figure(figsize=(min(6.4, side + 1.2), min(6.0, side + 0.5)))
    axes = figure.subplots()
    axes.set_facecolor("#EEEEEE")
    axes.imshow(matrix, vmin=0, vmax=1, cmap="cividis", interpolation="nearest")
    for i, j in np.argwhere(~np.isnan(matrix)):
        colour = "white" if matrix[i, j] < 0.5 else "black"
        size = 10.5 if len(names) <= 8 else 6.5
        axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", color=colour, size=size)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=columns, ylabel=rows, title=title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _references(axes: Axes, upright: bool, ceiling: float | None, floor: float | None) -> None:
    """Lines for ceiling and floor, named outside the plotting area."""
    for name, value, dashes in (("ceiling", ceiling, (5, 3)), ("floor", floor, (1, 2))):
        if value is None:
            continue
        line = axes.axvline if upright else axes.axhline
        line(value, color=INK, lw=1.2, dashes=dashes, zorder=1.5)
        at = (value, 1.01) if upright else (1.01, value)
        axes.text(
            *at,
            f"{name} {value:.3g}",
            transform=axes.get_xaxis_transform() if upright else axes.get_yaxis_transform(),
            ha="center" if upright else "left",
            va="bottom" if upright else "center",
            color=INK,
            size=9.5,
        )


def bars_with_ceiling(
    scores: Mapping[str, float],
    *,
    errors: Mapping[str, float] | None = None,
    ceiling: float | None = None,
    floor: float | None = None,
    xlabel: str = "",
    title: str = "",
    form: str = ".2f",
    end: float | None = None,
) -> Figure:
    """One horizontal bar per variant with its value, between lines for floor and ceiling.

    Args:
        scores: {variant: value}.
        errors: {variant: standard deviation}, drawn and printed.
        ceiling, floor: values of the reference lines.
        xlabel: what is measured, with its unit.
        title: a heading.
        form: format of the printed values.
        end: right end of the axis; None lets the values decide.
    """
    if not scores:
        raise ValueError("scores is empty; expected {variant: value}")
    errors = errors or {}
    figure = Figure(figsize=(6.4, 0.42 * len(scores) + 1.1 + 0.25 * bool(title)))
    axes = figure.subplots()
    for row, (variant, value) in enumerate(scores.items()):
        error = errors.get(variant)
        axes.barh(row, value, height=0.66, color=variant_colour(variant))
        if error is not None:
            axes.errorbar(value, row, xerr=error, color=INK, capsize=3, lw=1.2)
        text = format(value, form) + (f" ± {error:{form}}" if error is not None else "")
        shown = axes.annotate(
            text, (value + (error or 0), row), (5, 0), textcoords="offset points", va="center"
        )
        shown.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.set_yticks(range(len(scores)), [name.replace("_", " ") for name in scores])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    most = max([*scores.values(), ceiling or 0, floor or 0])
    axes.set_xlim(min(0, *scores.values()), end or most * 1.16 or 1)
    axes.set_xlabel(xlabel)
    axes.set_title(title, pad=22 if ceiling is not None or floor is not None else 8)
    _references(axes, True, ceiling, floor)
    return figure


def score_curves(
    x: Sequence[float],
    curves: Mapping[str, Any],
    *,
    errors: Mapping[str, Any] | None = None,
    ceiling: float | None = None,
    floor: float | None = None,
    xlabel: str = "",
    ylabel: str = "",
    logarithmic: bool = False,
) -> Figure:
    """Scores of variants against a number such as sources or NFE; markers differ with colours.

    A curve is a sequence as long as `x`, or {position: score} where curves differ in positions.
    """
    figure = Figure()
    axes = figure.subplots()
    for (variant, values), marker in zip(curves.items(), itertools.cycle("osD^vP*X")):
        spread = None if errors is None or variant not in errors else array(errors[variant])
        points = values if isinstance(values, Mapping) else dict(zip(x, array(values), strict=True))
        axes.errorbar(
            list(points),
            list(points.values()),
            yerr=spread,
            color=variant_colour(variant),
            marker=marker,
            capsize=3,
            label=variant.replace("_", " "),
        )
    if logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(list(x), [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y")
    if len(curves) > 1:
        axes.legend()
    _references(axes, False, ceiling, floor)
    return figure


def latent_scatter(
    points: Any,
    classes: Any,
    *,
    groups: Any = None,
    group_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Points (N, 2), such as t-SNE of latents, coloured by class, with the class written on them.

    Args:
        points: (N, 2) coordinates; their scale means nothing, so no ticks are drawn.
        classes: (N,) int, at most 10 distinct.
        groups: (N,) int, such as the modality; each gets its own marker.
        group_names, class_names: what to call them.
        title: a heading.
    """
    points, classes = array(points), array(classes).astype(int)
    if points.ndim != 2 or points.shape[1] != 2 or len(classes) != len(points):
        raise ValueError(f"points {points.shape}, classes {classes.shape}; expected (N, 2), (N,)")
    if classes.max() >= len(CLASS_COLOURS):
        raise ValueError(f"classes go up to {classes.max()}; expected at most 9")
    groups = np.zeros(len(points), int) if groups is None else array(groups).astype(int)
    figure = Figure(figsize=(5.4, 4.6))
    axes = figure.subplots()
    colours = np.array(CLASS_COLOURS)[classes]
    for group, marker in zip(np.unique(groups), itertools.cycle("osD^vP*X")):
        own = groups == group
        x, y = points[own].T
        axes.scatter(x, y, s=11, c=colours[own], marker=marker, alpha=0.8, lw=0.3, ec=INK)
        if group_names is not None:
            axes.scatter([], [], s=22, c=MUTED, marker=marker, label=group_names[group])
    for label in np.unique(classes):
        name = str(label) if class_names is None else class_names[label]
        x, y = np.median(points[classes == label], 0)
        text = axes.text(x, y, name, size=13, weight="bold", ha="center")
        text.set(va="center", color="black")
        text.set_path_effects([withStroke(linewidth=3.5, foreground="white")])
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(False)
    if group_names is not None:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
