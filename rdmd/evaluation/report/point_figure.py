"""samples.png for points: source, target, and where each method sends the source."""

import math
from typing import TYPE_CHECKING

from torch import Tensor

from rdmd.evaluation.labels import number, row_labels
from rdmd.evaluation.report.contents import PointSamples
from rdmd.evaluation.report.style import FAINT, INK, new_figure, png_of, styles
from rdmd.evaluation.row import GENERATOR, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 2000
_SEGMENTS = 160
_COLUMNS = 4
_LINE = 3.3


def point_samples_png(samples: PointSamples, rows: list[Row]) -> bytes:
    """Scatter panels: source, target, exact transport, then every method, with transport segments. Where the source is
    noise there is no exact transport, and nothing joins a sample to its noise."""
    panels = sorted(samples.panels, key=lambda panel: (panel.row.method != GENERATOR, -(panel.row.lam or 0.0)))
    labels = dict(zip(map(id, rows), row_labels(rows), strict=True))
    looks = styles([panel.row.method for panel in panels])
    first = 2 if samples.exact is None else 3
    count = first + len(panels)
    columns = min(_COLUMNS, count)
    lines = math.ceil(count / columns)
    figure = new_figure(2.75 * columns, _LINE * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    places = list(grid.flat)
    limits = _limits(samples)
    for place in places:
        place.set_axis_off()
    _scatter(places[0], samples.source, FAINT, "source", limits)
    _scatter(places[1], samples.target, INK, "target", limits)
    if samples.exact is not None:
        _scatter(places[2], samples.exact, INK, "exact transport", limits, samples.target)
        _segments(places[2], samples.source, samples.exact)
    for place, panel in zip(places[first:], panels, strict=False):
        title = f"{labels.get(id(panel.row), row_labels([panel.row])[0])}\n{_numbers(panel.row)}"
        _scatter(place, panel.samples, looks[panel.row.method].colour, title, limits, samples.target)
        if samples.exact is not None:
            _segments(place, samples.source, panel.samples)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.6 / (_LINE * lines), wspace=0.06, hspace=0.22)
    return png_of(figure)


def _scatter(
    axes: "Axes",
    points: Tensor,
    colour: str,
    title: str,
    limits: tuple[float, float],
    behind: Tensor | None = None,
) -> None:
    axes.set_axis_on()
    if behind is not None:
        axes.scatter(*behind[:_SHOWN].T.numpy(), s=2, color="#dcdcdc", linewidths=0, zorder=0)
    axes.scatter(*points[:_SHOWN].T.numpy(), s=2.2, color=colour, alpha=0.55, linewidths=0, zorder=2)
    axes.set(xlim=limits, ylim=limits, xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=8.5, color=INK, pad=5)
    for spine in axes.spines.values():
        spine.set_color("#cccccc")


def _segments(axes: "Axes", source: Tensor, images: Tensor) -> None:
    from matplotlib.collections import LineCollection

    count = min(_SEGMENTS, len(source), len(images))
    pairs = [[tuple(x), tuple(y)] for x, y in zip(source[:count].tolist(), images[:count].tolist(), strict=True)]
    axes.add_collection(LineCollection(pairs, colors="#c0392b", linewidths=0.45, alpha=0.6, zorder=1))


def _limits(samples: PointSamples) -> tuple[float, float]:
    """One square window for all panels: all of the target and, unless it is noise, nearly all of the source."""
    target = samples.target.abs().max().item()
    if samples.exact is None:
        return -1.05 * target, 1.05 * target
    source = samples.source.abs().quantile(0.995).item()
    half = 1.05 * max(target, source)
    return -half, half


def _numbers(row: Row) -> str:
    realism = f"SW2 {number(row.sw2)}"
    if row.l2_uvp is not None:
        realism += f", L2-UVP {number(row.l2_uvp)}%"
    return realism if row.cost_sum is None else f"{realism}\ncost, sum {number(row.cost_sum)}"
