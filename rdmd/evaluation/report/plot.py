"""A figure as a page shows it: its picture, and where on it the rows stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdmd.evaluation.report.style import INK, new_figure, png_of
from rdmd.evaluation.row import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Mark:
    """A row's place: `left` and `top` in shares of the picture's width and height, 0 to 1."""

    left: float
    top: float
    row: Row


@dataclass(frozen=True)
class Plot:
    """A PNG with its marks."""

    png: bytes
    marks: list[Mark]


def empty_plot(text: str) -> Plot:
    """A line of text in the place of a figure that nothing can be drawn into."""
    figure = new_figure(7.6, 1.2)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color=INK)
    return Plot(png_of(figure), [])


def plot_of(figure: "Figure", axes: "Axes", placed: Sequence[tuple[float, float, Row]]) -> Plot:
    """The finished `figure`, with a mark for each (x, y, row) in data coordinates of `axes`."""
    png = png_of(figure)
    width, height = figure.get_size_inches() * figure.dpi
    marks = []
    for x, y, row in placed:
        right, up = axes.transData.transform((x, y))
        marks.append(Mark(float(right / width), float(1 - up / height), row))
    return Plot(png, marks)
