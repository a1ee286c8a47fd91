"""Figures of samples: images in a grid, points as scatter plots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rdmd.evaluation.faithfulness import cost
from rdmd.evaluation.row import GENERATOR, Row
from rdmd.evaluation.table import hyperparameters, method_name, number, row_label
from rdmd.report.style import FAINT, INK, new_figure, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels of an image in a grid: small images are enlarged to about CELL, images larger than _LARGEST are reduced to it.
CELL, _LARGEST = 112, 256
GAP, MARGIN, LINE = 6, 8, 15
_GRID_DPI = 100
SHOWN_IMAGES, _EXTREMES = 8, 6
_SHOWN_POINTS, _SEGMENTS = 2000, 160
_PANEL_HEIGHT = 3.3


@dataclass(frozen=True)
class Samples:
    """Sources and their translations by each method, in the same order.

    Images are (n, 3, H, W) uint8, and have `counterparts`, the true ones of the sources, where these are known. Points
    are (n, 2) floats, and have `target` (m, 2) and, unless the source is noise, `exact` (k, 2): the exact transport of
    the first k sources.
    """

    source: Tensor
    translations: list[tuple[Row, Tensor]]
    target: Tensor | None = None
    exact: Tensor | None = None
    counterparts: Tensor | None = None

    @property
    def are_images(self) -> bool:
        """Whether the samples are images; they are points otherwise."""
        return self.source.ndim == 4


def samples_figure(samples: Samples, rows: Sequence[Row]) -> "Figure":
    """The translations of every method, generators by falling lambda first. `rows` (all rows) make labels unique."""
    ordered = sorted(samples.translations, key=lambda pair: (pair[0].method != GENERATOR, -(pair[0].lam or 0.0)))
    if not samples.are_images:
        return _points_figure(samples, ordered, rows)
    columns = [("source", samples.source), *((column_title(row, rows), images) for row, images in ordered)]
    if samples.counterparts is not None:
        columns.append(("true\ncounterpart", samples.counterparts))
    return image_grid([(title, images[:SHOWN_IMAGES]) for title, images in columns])


def column_title(row: Row, rows: Sequence[Row]) -> str:
    """A method's name, its hyperparameters and its network evaluations, each on its own line."""
    return "\n".join(filter(None, [method_name(row.method), *hyperparameters(row, rows).split(", "), f"NFE {row.nfe}"]))


def image_grid(columns: Sequence[tuple[str, Tensor]]) -> "Figure":
    """A column for each (title, images), images (n, 3, H, W) uint8, all columns of one shape."""
    cells = np.stack([_sized(images) for _, images in columns], axis=1)
    lines, count, height, width, _ = cells.shape
    pitch = (height + GAP, width + GAP)
    canvas = np.full((lines * pitch[0] - GAP, count * pitch[1] - GAP, 3), 255, np.uint8)
    for line, column in np.ndindex(lines, count):
        top, left = line * pitch[0], column * pitch[1]
        canvas[top : top + height, left : left + width] = cells[line, column]
    head = MARGIN + LINE * max(title.count("\n") + 1 for title, _ in columns)
    wide, high = canvas.shape[1] + 2 * MARGIN, canvas.shape[0] + head + MARGIN
    figure = new_figure(wide / _GRID_DPI, high / _GRID_DPI, _GRID_DPI, constrained=False)
    # The axes cover the canvas pixel by pixel, so that nothing is smoothed.
    axes = figure.add_axes((MARGIN / wide, MARGIN / high, canvas.shape[1] / wide, canvas.shape[0] / high))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for column, (title, _) in enumerate(columns):
        axes.text(
            column * pitch[1] + width / 2, -GAP, title, ha="center", va="bottom", fontsize=9, color=INK, linespacing=1.2
        )
    return figure


def extremes_figure(source: Tensor, translations: Tensor) -> "Figure":
    """The images that a method changed least (left) and most (right), source above translation, titled by cost."""
    costs = cost(source, translations)
    order = torch.argsort(costs, stable=True)
    count = min(_EXTREMES, max(1, len(order) // 2))

    def column(index: int) -> tuple[str, Tensor]:
        return number(costs[index].item()), torch.stack([source[index], translations[index]])

    blank = ("", torch.full((2, *source.shape[1:]), 255, dtype=torch.uint8))
    picks = order.tolist()
    return image_grid([*map(column, picks[:count]), blank, *map(column, picks[-count:])])


def _sized(images: Tensor) -> np.ndarray:
    """(n, 3, H, W) uint8 to (n, H', W', 3): small images enlarged by a whole factor, large ones reduced."""
    largest = max(images.shape[2:])
    if largest > _LARGEST:
        reduced = interpolate(images.float(), scale_factor=_LARGEST / largest, mode="bilinear", antialias=True)
        images = reduced.round().clamp(0, 255).to(torch.uint8)
    factor = max(1, round(CELL / largest))
    return images.cpu().permute(0, 2, 3, 1).numpy().repeat(factor, axis=1).repeat(factor, axis=2)


def _points_figure(samples: Samples, ordered: Sequence[tuple[Row, Tensor]], rows: Sequence[Row]) -> "Figure":
    """Source, target, exact transport and every method, with segments from sources to their translations."""
    if samples.target is None:
        raise ValueError("samples of points need the target's points")
    looks = styles([row.method for row, _ in ordered])
    panels = [("source", samples.source, FAINT), ("target", samples.target, INK)]
    if samples.exact is not None:
        panels.append(("exact transport", samples.exact, INK))
    for row, points in ordered:
        panels.append((f"{row_label(row, rows)}\n{_numbers(row)}", points, looks[row.method].colour))
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = new_figure(2.75 * columns, _PANEL_HEIGHT * lines)
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    half = _half_width(samples)
    for index, (axes, (title, points, colour)) in enumerate(zip(places, panels, strict=False)):
        if index > 1:
            axes.scatter(*samples.target[:_SHOWN_POINTS].T.numpy(), s=2, color="#dcdcdc", linewidths=0, zorder=0)
            # Noise has no map: a segment from it would mean nothing.
            if samples.exact is not None:
                _draw_segments(axes, samples.source, points)
        axes.scatter(*points[:_SHOWN_POINTS].T.numpy(), s=2.2, color=colour, alpha=0.55, linewidths=0, zorder=2)
        axes.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")
        axes.set_title(title, fontsize=8.5, color=INK, pad=5)
        axes.spines[:].set_color("#cccccc")
    return figure


def _draw_segments(axes: "Axes", source: Tensor, translations: Tensor) -> None:
    from matplotlib.collections import LineCollection

    count = min(_SEGMENTS, len(source), len(translations))
    pairs = torch.stack([source[:count], translations[:count]], dim=1).numpy()
    axes.add_collection(LineCollection(list(pairs), colors="#c0392b", linewidths=0.45, alpha=0.6, zorder=1))


def _half_width(samples: Samples) -> float:
    """Of the square window of all panels: all of the target and, unless it is noise, nearly all of the source."""
    target = 0.0 if samples.target is None else samples.target.abs().max().item()
    source = 0.0 if samples.exact is None else samples.source.abs().quantile(0.995).item()
    return 1.05 * max(target, source)


def _numbers(row: Row) -> str:
    realism = f"SW2 {number(row.sw2)}"
    if row.l2_uvp is not None:
        realism += f", L2-UVP {number(row.l2_uvp)}%"
    return realism if row.cost_sum is None else f"{realism}\ncost, sum {number(row.cost_sum)}"
