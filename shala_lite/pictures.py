"""Grids of images, pixel for pixel, and of texts among them.

Images are arrays or tensors (C, H, W) with C 1, 3 or 4, or (H, W): uint8, or float in [0, 1]. A
fourth channel is the silhouette of what the colours show on white; it is not drawn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

INK, FRAME = "#333333", "#E69F00"
FONT, SMALLEST = "fonts/ttf/DejaVuSans.ttf", 7


def array(values: Any) -> np.ndarray:
    """A NumPy array of an array, a list, or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def as_rgb(image: Any) -> np.ndarray:
    """One image (1, 3 or 4, H, W) or (H, W), uint8 or float in [0, 1], as uint8 (H, W, 3)."""
    image = array(image)
    image = image[None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"image has shape {image.shape}; expected (H, W), or (C, H, W) with C of 1, 3 or 4"
        )
    image = image[:3]
    if image.dtype != np.uint8:
        image = (image.clip(0, 1) * 255).round().astype(np.uint8)
    return np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3))


def _rows(rows: Any) -> list[list[np.ndarray | None]]:
    """Images of rows given as a mapping, a sequence or one array; None is an empty cell."""
    rows = list(rows.values()) if isinstance(rows, Mapping) else list(rows)
    grid = [[None if image is None else as_rgb(image) for image in row] for row in rows]
    if not any(image is not None for row in grid for image in row):
        raise ValueError("rows hold no image")
    return grid


def _mosaic(
    grid: list[list[np.ndarray | None]], gap: int
) -> tuple[np.ndarray, list[int], list[int], int]:
    """The picture of a grid on white, top and height of each row, width of a cell; in pixels."""
    images = [image for row in grid for image in row if image is not None]
    width, columns = max(image.shape[1] for image in images), max(len(row) for row in grid)
    heights = [max((i.shape[0] for i in row if i is not None), default=0) for row in grid]
    tops = [sum(heights[:i]) + gap * i for i in range(len(grid))]
    canvas = np.full((tops[-1] + heights[-1], columns * (width + gap) - gap, 3), 255, np.uint8)
    for row, start, height in zip(grid, tops, heights):
        for j, image in enumerate(row):
            if image is not None:
                top = start + (height - image.shape[0]) // 2
                left = j * (width + gap) + (width - image.shape[1]) // 2
                canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas, tops, heights, width


def mosaic(rows: Any, *, gap: int = 2) -> np.ndarray:
    """A grid of images as one picture (H, W, 3) uint8, for a slider's frame.

    Args:
        rows: as in `image_grid`.
        gap: white pixels between images.
    """
    return _mosaic(_rows(rows), gap)[0]


def _width(text: str, size: float) -> float:
    """Width of the longest line of a text in points."""
    lines = [line for line in text.split("\n") if line.strip()]
    return max((TextPath((0, 0), line, size=size).get_extents().width for line in lines), default=0)


def _headings(titles: Sequence[str], room: float, size: float) -> tuple[list[str], bool, float]:
    """Column titles broken to `room` points, or left whole and to be turned where a word is longer.

    Returns the titles, whether they are turned by 40 degrees, and the height they need in points.
    """
    words = [word for title in titles for word in title.split()]
    if max((_width(word, size) for word in words), default=0) > room:
        return list(titles), True, 0.65 * max(_width(t, size) for t in titles) + 1.7 * size
    letters = max(1, int(room / (_width("n", size) * 1.05)))
    broken = [textwrap.fill(title, letters, break_long_words=False) for title in titles]
    return broken, False, size * 1.3 * max(title.count("\n") + 1 for title in broken) + 3


def image_grid(
    rows: Any,
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    marked: Collection[tuple[int, int]] = (),
    zoom: float | None = None,
    gap: int = 2,
    width: float = 700,
) -> Figure:
    """Rows of images with titles, every image pixel equally large on the screen.

    Args:
        rows: sequence of rows of images (C, H, W), an array (rows, columns, C, H, W), or
            {title: row}. None leaves a cell empty.
        row_titles: one for each row; a mapping's keys by default.
        column_titles: one for each column.
        marked: (row, column) of images to frame, such as what was given.
        zoom: screen pixels per image pixel, a multiple of a half. None: the largest, up to 4,
            that fits `width`.
        gap: image pixels between images.
        width: screen pixels that the figure should fit.

    Raises:
        ValueError: titles that do not match the grid, or an array that is no image.
    """
    if row_titles is None and isinstance(rows, Mapping):
        row_titles = list(rows)
    grid = _rows(rows)
    picture, tops, heights, wide = _mosaic(grid, gap)
    for name, titles, count in (
        ("row_titles", row_titles, len(grid)),
        ("column_titles", column_titles, max(len(row) for row in grid)),
    ):
        if titles is not None and len(titles) != count:
            raise ValueError(f"{name} has {len(titles)} entries; expected {count}")
    dpi, size = matplotlib.rcParams["figure.dpi"], matplotlib.rcParams["font.size"]
    pixel = dpi / 72  # screen pixels per point
    left = round(_width("\n".join(row_titles), size) * pixel + 10) if row_titles else 1
    fitting = (width - left) / picture.shape[1]
    zoom = zoom or float(np.clip(np.floor(2 * fitting) / 2, 1, 4))
    headings: list[str] = []
    turned, top, right = False, 1, 1
    if column_titles:
        headings, turned, room = _headings(column_titles, wide * zoom / pixel, size)
        top = round(room * pixel)
        if turned:  # those at the end lean over the edge
            steps = np.arange(len(headings))[::-1] * (wide + gap) + wide / 2
            leaning = [0.77 * _width(title, size) * pixel for title in headings]
            right = max(1, round(max(leaning - steps * zoom)) + 4)
    across, down = picture.shape[1] * zoom, picture.shape[0] * zoom
    total = np.ceil((left + across + right, top + down + 1))
    figure = Figure(figsize=tuple(total / dpi), dpi=dpi, layout="constrained")
    # a place holder remains; with no engine at all, saving would bring the style's engine back
    figure.set_layout_engine("none")
    bottom = (total[1] - top - down) / total[1]
    axes = figure.add_axes((left / total[0], bottom, across / total[0], down / total[1]))
    axes.set_axis_off()
    extent = (0, picture.shape[1], picture.shape[0], 0)  # the axes count image pixels
    axes.imshow(picture, interpolation="nearest", aspect="auto", extent=extent)
    for i, title in enumerate(row_titles or ()):
        middle = tops[i] + heights[i] / 2
        axes.text(-6 / zoom, middle, title, ha="right", va="center", size=size, color=INK)
    lean: dict[str, Any] = {"ha": "left", "rotation": 40, "rotation_mode": "anchor"}
    for j, title in enumerate(headings):
        middle = j * (wide + gap) + wide / 2
        options = lean if turned else {"ha": "center"}
        axes.text(middle, -5 / zoom, title, va="bottom", size=size, color=INK, **options)
    for i, j in marked:
        corner, high = (j * (wide + gap), tops[i]), heights[i]
        axes.add_patch(Rectangle(corner, wide, high, fill=False, ec=FRAME, lw=2.5, clip_on=False))
    return figure


def side_by_side(blocks: Mapping[str, Mapping[str, Sequence[Any]]], **options: Any) -> Figure:
    """Blocks of images next to each other, a gap between them, each under its title.

    Args:
        blocks: {title: {row title: images}}, all with the same rows.
        options: as in `image_grid`, but for the column titles.
    """
    names = {title: list(block) for title, block in blocks.items()}
    rows: dict[str, list[Any]] = {name: [] for name in next(iter(names.values()), [])}
    middles, columns = {}, 0  # of each block, counted in columns
    for title, block in blocks.items():
        if names[title] != list(rows):
            raise ValueError(f"blocks have the rows {names}; expected the same in each")
        start = columns + bool(columns)
        columns = start + max(map(len, block.values()))
        middles[title] = (start + columns) / 2
        for name, images in block.items():
            rows[name] += [None] * (start - len(rows[name])) + list(images)
    figure = image_grid(rows, column_titles=[""] * columns, **options)
    axes, size = figure.axes[0], matplotlib.rcParams["font.size"]
    for title, middle in middles.items():
        at = (middle / columns, 1.02)
        words = title.replace("_", " ")
        axes.text(*at, words, transform=axes.transAxes, ha="center", size=size, color=INK)
    return figure


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), size)


def written(
    texts: Sequence[str], width: int, *, lines: int = 1, size: int = 13
) -> list[np.ndarray]:
    """Pictures (H, width) uint8 of texts, centred and broken at spaces, all of one height.

    Args:
        texts: one for each picture.
        width: in pixels.
        lines: how many there is room for; a text that needs more ends in an ellipsis.
        size: of the letters, in pixels; smaller where the longest word does not fit.
    """
    from PIL import Image, ImageDraw

    def room(text: str, size: int) -> float:
        return _font(size).getlength(text)

    words = [word for text in texts for word in text.split()]
    while size > SMALLEST and any(room(word, size) > width - 4 for word in words):
        size -= 1
    font, letters = _font(size), max(1, int((width - 4) / room("n", size)))
    letters = max(letters, *(len(word) for word in words), 1)  # those that fit are not broken
    pictures = []
    for text in texts:
        picture = Image.new("L", (width, round(lines * 1.3 * size) + 4), 255)
        broken = textwrap.wrap(text, letters, max_lines=lines, placeholder="…") or [""]
        at = (width / 2, picture.height / 2)
        draw = ImageDraw.Draw(picture)
        draw.multiline_text(at, "\n".join(broken), 51, font, anchor="mm", align="center", spacing=2)
        pictures.append(np.asarray(picture))
    return pictures


def tiles(
    x: Mapping[str, Any], modalities: Sequence[Any], *, zoom: int = 3, lines: int = 1
) -> dict[str, list[np.ndarray]]:
    """Rows for `image_grid` at zoom 1: pictures enlarged, texts written as wide as the widest.

    Args:
        x: {name: (n, *shape)}, observations of any of the modalities.
        modalities: theirs; a text's `vocabulary` spells it.
        zoom: screen pixels per image pixel.
        lines: of a text.
    """
    rows, images = {}, [m for m in modalities if m.kind == "image"]
    width = zoom * max((m.shape[-1] for m in images), default=32)
    for modality in modalities:
        if modality.name not in x:
            continue
        seen = x[modality.name]
        if modality.kind == "text":
            texts = modality.vocabulary.decode(seen)
            if not modality.vocabulary.separator:  # letters have their places, blanks too
                texts = [text.ljust(modality.shape[0]).replace(" ", "·") for text in texts]
            rows[modality.name] = written(texts, width, lines=lines)
        else:
            large = [as_rgb(image).repeat(zoom, 0).repeat(zoom, 1) for image in seen]
            rows[modality.name] = [image.transpose(2, 0, 1) for image in large]
    return rows
