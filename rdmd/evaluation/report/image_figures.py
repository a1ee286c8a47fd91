"""samples.png for pictures, and the translations that changed least and most."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rdmd.evaluation import faithfulness
from rdmd.evaluation.labels import dial, method_name, number
from rdmd.evaluation.report.contents import ImageSamples, Panel
from rdmd.evaluation.report.style import INK, new_figure, png_of
from rdmd.evaluation.row import GENERATOR, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 8
EXTREMES = 8
_CELL = 112
_GAP = 6
_DPI = 100
_LINE, _LEAST_LINES = 15, 3
_SIDE = 8


def samples_png(samples: ImageSamples, rows: list[Row]) -> bytes:
    """A row a source picture, a column a method, the source first. `rows` (all) name the dials."""
    panels = _ordered(samples.panels)
    titles = [column_title(panel.row, rows) for panel in panels]
    columns = [(title, panel.samples) for title, panel in zip(titles, panels, strict=True)]
    return columns_png([("source", samples.source), *columns])


def column_title(row: Row, rows: list[Row]) -> str:
    """A method's name, its dials and its evaluations, each on a line."""
    return "\n".join(filter(None, [method_name(row.method), *dial(row, rows).split(", "), f"NFE {row.nfe}"]))


def columns_png(columns: Sequence[tuple[str, Tensor]]) -> bytes:
    """The first pictures of each column, (n, 3, H, W) uint8, side by side below its title."""
    head = 17 + _LINE * max(_LEAST_LINES, *(title.count("\n") + 1 for title, _ in columns))
    cell = _enlarged(columns[0][1][:1]).shape[1]
    step = cell + _GAP
    width = 2 * _SIDE + len(columns) * step - _GAP
    height = head + len(columns[0][1][:ROWS]) * step - _GAP + _SIDE
    figure = new_figure(width / _DPI, height / _DPI, _DPI)
    for number_, (title, pictures) in enumerate(columns):
        left = _SIDE + number_ * step
        _text(figure, left + cell / 2, height - head + 6, title, "bottom")
        for line, picture in enumerate(_enlarged(pictures[:ROWS])):
            figure.figimage(picture, left, height - head - line * step - cell)
    return png_of(figure)


def extremes_png(samples: ImageSamples, panel: Panel) -> bytes:
    """Two strips for one method: the pictures that it changed least and those that it changed most, by cost.

    Each strip has the source above and the translation below, with its cost.
    """
    costs = faithfulness.cost(samples.source, panel.samples)
    order = torch.argsort(costs, stable=True)
    count = min(EXTREMES, max(1, len(order) // 2))
    strips = [("changed least", order[:count]), ("changed most", order[-count:].flip(0))]
    cell = _enlarged(samples.source[:1]).shape[1]
    step, foot, head = cell + _GAP, 22, 26
    block = head + 2 * step - _GAP + foot
    width, height = 2 * _SIDE + count * step - _GAP, 2 * block + _SIDE
    figure = new_figure(width / _DPI, height / _DPI, _DPI)
    for strip, (title, picks) in enumerate(strips):
        top = height - strip * block
        _text(
            figure,
            _SIDE,
            top - head + 6,
            f"{title} (source above, translation below, cost)",
            "bottom",
            "left",
        )
        pairs = zip(_enlarged(samples.source[picks]), _enlarged(panel.samples[picks]), strict=True)
        for column, (source, translation) in enumerate(pairs):
            left = _SIDE + column * step
            figure.figimage(source, left, top - head - cell)
            figure.figimage(translation, left, top - head - cell - step)
            _text(
                figure,
                left + cell / 2,
                top - head - cell - step - 4,
                number(costs[picks[column]].item()),
                "top",
            )
    return png_of(figure)


def _ordered(panels: list[Panel]) -> list[Panel]:
    """Generators first, by falling lambda (from faithful to realistic), then the others as they come."""
    generators = [panel for panel in panels if panel.row.method == GENERATOR]
    generators.sort(key=lambda panel: -(panel.row.lam or 0.0))
    return generators + [panel for panel in panels if panel.row.method != GENERATOR]


def _enlarged(pictures: Tensor) -> np.ndarray:
    """(n, 3, H, W) uint8 to (n, H', W', 3) by a whole factor, nearest neighbour, to about 112 pixels."""
    factor = max(1, round(_CELL / max(pictures.shape[2:])))
    shown = pictures.cpu().permute(0, 2, 3, 1).numpy()
    return shown.repeat(factor, axis=1).repeat(factor, axis=2)


def _text(figure: "Figure", x: float, y: float, text: str, vertical: str, horizontal: str = "center") -> None:
    width, height = figure.get_size_inches() * figure.dpi
    figure.text(x / width, y / height, text, ha=horizontal, va=vertical, fontsize=9, color=INK, linespacing=1.2)
