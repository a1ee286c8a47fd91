"""Figures of numbers: the plane of cost and realism, realism alone, training curves."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, Metrics, Row
from rdmd.evaluation.selection import nondominated, plane
from rdmd.evaluation.table import (
    Z95,
    hyperparameters,
    method_name,
    realism_name,
    row_label,
    summary,
    varying_hyperparameters,
)
from rdmd.report.style import CYCLE, DPI, FAINT, GRID, INK, Style, new_figure, plain_axes, styles
from rdmd.training import run_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# An axis or a panel is logarithmic if its largest value exceeds its smallest by this ratio.
_LOG_AXIS, _LOG_CURVE = 8, 30
# Steps of adjustText: a limit in time would make the figure depend on the machine.
_LABEL_STEPS = 400
Span = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """A point with intervals: `x_interval` and `y_interval` are (low, high), in the units of the axes."""

    x: float
    y: float
    x_interval: Span | None = None
    y_interval: Span | None = None
    label: str = ""
    filled: bool = True


@dataclass(frozen=True)
class Series:
    """The points of one method. A line joins the filled points by rising x."""

    label: str
    points: Sequence[Point]
    style: Style


@dataclass(frozen=True)
class Reference:
    """A vertical line at `x` or a horizontal line at `y`, with a shaded interval."""

    label: str
    x: float | None = None
    y: float | None = None
    interval: Span | None = None
    line: str = ":"


@dataclass(frozen=True)
class Plane:
    """One panel: series of points and reference lines on two metrics. An axis turns logarithmic where its values span
    a large ratio, the x axis only if `log_x`."""

    x_label: str
    y_label: str
    series: Sequence[Series]
    references: Sequence[Reference] = field(default_factory=list)
    log_x: bool = False
    title: str = ""


def front_figure(
    planes: Sequence[Plane],
    caption: str = "",
    columns: int | None = None,
    shared_legend: bool = True,
    dpi: int = DPI,
) -> "Figure":
    """Panels in rows of `columns` (None: one row), with one legend or one in each; adjustText places the labels."""
    columns = min(columns or len(planes), len(planes))
    lines = math.ceil(len(planes) / columns)
    figure = new_figure(7.6 if columns == 1 else 5.6 * columns, 5.8 if lines == 1 else 5.2 * lines, dpi)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(planes) :]:
        axes.set_axis_off()
    panels = panels[: len(planes)]
    for axes, panel in zip(panels, planes, strict=True):
        _draw_plane(axes, panel)
        if not shared_legend:
            axes.legend(fontsize=8, frameon=False)
    if shared_legend:
        entries = {
            label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        look: dict[str, Any] = {"loc": "outside upper left", "ncols": 3 * columns, "fontsize": 8, "frameon": False}
        figure.legend(entries.values(), entries.keys(), **look)
    _write_caption(figure, caption)
    # Labels are placed in pixels, so the layout has to be final.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, panel in zip(panels, planes, strict=True):
        _place_labels(axes, panel)
    return figure


def metrics_figure(metrics: Metrics) -> "Figure":
    """`front_figure` of an evaluation, or `realism_figure` if no row has a cost. Generators with `on_front` are filled.

    A baseline with one hyperparameter is a curve; a grid of several is drawn as its front, without labels.
    """
    placed = [row for row in metrics.rows if row.cost is not None and row.realism is not None]
    if not placed:
        return realism_figure(metrics)
    series = []
    for method, style in styles([row.method for row in placed]).items():
        rows = sorted((row for row in placed if row.method == method), key=plane)
        grid = method != GENERATOR and len(varying_hyperparameters(rows[0], metrics.rows)) > 1
        front = nondominated([plane(row) for row in rows])
        points = [
            _point(
                row,
                "" if grid else hyperparameters(row, metrics.rows),
                row.on_front if method == GENERATOR else best or not grid,
            )
            for row, best in zip(rows, front, strict=True)
        ]
        evaluations = "" if method == IDENTITY else f" (NFE {_span([row.nfe for row in rows])})"
        series.append(Series(f"{method_name(method)}{evaluations}", points, style))
    x_label = "cost: squared difference to the source, mean over dimensions  (faithful ←)"
    y_label = f"{_realism_label(placed[0])}  (realistic ↓)"
    bootstrapped = "realism by bootstrap, " if any(row.realism_ci for row in placed) else ""
    caption = (
        f"{metrics.experiment}: {summary(metrics)}. RDMD: filled markers are on the front. "
        f"Bars: 95% intervals ({bootstrapped}cost by its standard error)."
    )
    return front_figure([Plane(x_label, y_label, series, _references(metrics, placed))], caption)


def realism_figure(metrics: Metrics) -> "Figure":
    """One line for each method and its realism with a 95% interval; left is better. For methods without a cost."""
    placed = [row for row in metrics.rows if row.method != TARGET and row.realism is not None]
    figure = new_figure(7.6, 1.9 + 0.45 * len(placed))
    axes = figure.subplots()
    if not placed:
        axes.set_axis_off()
        axes.text(0, 0.5, "No realism was measured: the test split has too few samples.", fontsize=9, color=INK)
        return figure
    looks = styles([row.method for row in placed])
    for line, row in enumerate(placed):
        point = _point(row, "", True)
        axes.errorbar(
            point.y,
            line,
            xerr=_bars(point.y, point.y_interval),
            fmt=looks[row.method].marker,
            color=looks[row.method].colour,
            markersize=7,
            capsize=3,
        )
    for reference in _references(metrics, []):
        _draw_reference(axes, Reference(reference.label, x=reference.y, interval=reference.interval))
        figure.legend(loc="outside upper left", fontsize=8, frameon=False)
    names = [f"{row_label(row, metrics.rows)}\nNFE {row.nfe}" for row in placed]
    axes.set_yticks(range(len(placed)), names, color=INK)
    axes.set_ylim(len(placed) - 0.5, -0.5)
    axes.set_xlim(left=min([0.0, *(row.realism or 0.0 for row in placed)]))
    axes.set_xlabel(f"{_realism_label(placed[0])}  (← realistic)", fontsize=9)
    plain_axes(axes, "x")
    bars = " Bars: 95% bootstrap intervals." if any(row.realism_ci for row in placed) else ""
    _write_caption(figure, f"{metrics.experiment}: {summary(metrics)}.{bars}")
    return figure


def curves_figure(curves: Mapping[str, Sequence[run_folder.Point]]) -> "Figure":
    """One panel for each metric, one line for each training: the logged values, thin, and their running mean.

    A metric may be on few of the points."""
    metrics = list(dict.fromkeys(metric for curve in curves.values() for point in curve for metric in point.values))
    columns = min(3, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    figure = new_figure(3.4 * columns + 0.2, 2.5 * lines + 0.5)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(metrics) :]:
        axes.set_axis_off()
    for axes, metric in zip(panels, metrics, strict=False):
        drawn: list[np.ndarray] = []
        for index, (name, curve) in enumerate(curves.items()):
            found = [(point.step, point.values[metric]) for point in curve if metric in point.values]
            if not found:
                continue
            steps, logged = np.array(found).T
            drawn.append(logged)
            style = CYCLE[index % len(CYCLE)]
            axes.plot(steps, logged, color=style.colour, linewidth=0.5, alpha=0.35)
            axes.plot(steps, _running_mean(logged), color=style.colour, linestyle=style.line, linewidth=1.4, label=name)
        _log_scale(axes, "y", np.concatenate(drawn), _LOG_CURVE)
        axes.set_title(metric.replace("_", " "), fontsize=9)
        axes.set_xlabel("optimizer step", fontsize=8)
        axes.legend(fontsize=7, frameon=False)
        plain_axes(axes)
    return figure


def _point(row: Row, label: str, filled: bool) -> Point:
    cost, realism = row.cost or 0.0, row.realism or 0.0
    spread = None if row.cost_se is None else (cost - Z95 * row.cost_se, cost + Z95 * row.cost_se)
    return Point(cost, realism, spread, row.realism_ci, label, filled)


def _references(metrics: Metrics, placed: Sequence[Row]) -> list[Reference]:
    """The target itself as the floor of realism, and the cost of exact transport."""
    found = [
        Reference("target's train against test", y=row.realism, interval=row.realism_ci)
        for row in metrics.rows
        if row.method == TARGET and row.realism is not None
    ]
    # `ot_cost` sums over dimensions, the axis shows the mean.
    exact = [row.ot_cost * row.cost / row.cost_sum for row in placed if row.ot_cost and row.cost and row.cost_sum]
    return found + [Reference("cost of exact transport", x=cost, line="--") for cost in exact[:1]]


def _draw_plane(axes: "Axes", panel: Plane) -> None:
    for series in panel.series:
        style = series.style
        joined = sorted((point.x, point.y) for point in series.points if point.filled)
        axes.plot(*np.array(joined).reshape(-1, 2).T, linestyle=style.line, color=style.colour, linewidth=1.3, zorder=2)
        for point in series.points:
            axes.errorbar(
                point.x,
                point.y,
                xerr=_bars(point.x, point.x_interval),
                yerr=_bars(point.y, point.y_interval),
                fmt=style.marker,
                color=style.colour,
                markerfacecolor=style.colour if point.filled else "white",
                markersize=6.5,
                elinewidth=0.9,
                capsize=2.2,
                zorder=3,
            )
        axes.plot([], [], linestyle=style.line, marker=style.marker, color=style.colour, label=series.label)
    for reference in panel.references:
        _draw_reference(axes, reference)
    points = [point for series in panel.series for point in series.points]
    if not _log_scale(axes, "y", [point.y for point in points], _LOG_AXIS):
        axes.set_ylim(bottom=min([0.0, *(point.y for point in points)]))
    if not (panel.log_x and _log_scale(axes, "x", [point.x for point in points], _LOG_AXIS)):
        span = max((point.x for point in points), default=0.0) or 1.0
        axes.set_xlim(-0.05 * span, 1.12 * span)
    axes.set_xlabel(panel.x_label, fontsize=9)
    axes.set_ylabel(panel.y_label, fontsize=9)
    axes.set_title(panel.title, fontsize=9)
    plain_axes(axes)


def _draw_reference(axes: "Axes", reference: Reference) -> None:
    look: dict[str, Any] = {"color": FAINT, "linestyle": reference.line, "zorder": 1, "label": reference.label}
    shade: dict[str, Any] = {"color": GRID, "alpha": 0.8, "linewidth": 0, "zorder": 0}
    for value, line, band in ((reference.x, axes.axvline, axes.axvspan), (reference.y, axes.axhline, axes.axhspan)):
        if value is not None:
            line(value, **look)
            if reference.interval is not None:
                band(*reference.interval, **shade)


def _place_labels(axes: "Axes", panel: Plane) -> None:
    """Labels beside their points, clear of each other, of the points, their bars, and the lines of the series."""
    from adjustText import adjust_text
    from matplotlib.transforms import Bbox

    points = [(point, series.style.colour) for series in panel.series for point in series.points]
    texts = [axes.text(p.x, p.y, p.label, fontsize=8, color=colour, zorder=4) for p, colour in points if p.label]
    bottom, top = axes.get_ylim()
    bars = [
        Bbox([(p.x, max(p.y_interval[0], bottom)), (p.x, min(p.y_interval[1], top))])
        for p, _ in points
        if p.y_interval is not None
    ]
    x, y = np.concatenate([[(p.x, p.y) for p, _ in points], *(_along_line(axes, series) for series in panel.series)]).T
    # Uncrossing the leaders can swap two labels forever, with one on top of the other.
    adjust_text(
        texts,
        x,
        y,
        objects=bars or None,
        ax=axes,
        iter_lim=_LABEL_STEPS,
        expand=(1.15, 1.4),
        force_text=(0.3, 0.6),
        prevent_crossings=False,
        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6},
        min_arrow_len=12,
    )


def _along_line(axes: "Axes", series: Series) -> np.ndarray:
    """Points (n, 2) on the line of a series, in data coordinates, about 20 pixels apart."""
    corners = sorted((point.x, point.y) for point in series.points if point.filled)
    found = [np.empty((0, 2))]
    for start, end in pairwise(axes.transData.transform(np.reshape(corners, (-1, 2)))):
        between = np.linspace(start, end, max(2, int(np.hypot(*(end - start)) / 20)))
        found.append(axes.transData.inverted().transform(between))
    return np.concatenate(found)


def _log_scale(axes: "Axes", name: str, values: Sequence[float] | np.ndarray, ratio: float) -> bool:
    """Make the axis logarithmic, with plain numbers, if all values are positive and the largest exceeds the smallest
    `ratio` times."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if len(values) == 0 or min(values) <= 0 or max(values) / min(values) <= ratio:
        return False
    axes.set(**{f"{name}scale": "log"})
    axis = axes.yaxis if name == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    return True


def _write_caption(figure: "Figure", caption: str) -> None:
    if caption:
        wrapped = textwrap.fill(caption, width=int(16.5 * figure.get_figwidth()))
        figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=7.5, color="#444444", linespacing=1.35)


def _bars(value: float, interval: Span | None) -> list[list[float]] | None:
    """The distances from `value` to the ends of its interval; a bootstrap interval may miss the value itself."""
    return None if interval is None else [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]


def _realism_label(row: Row) -> str:
    metric = realism_name(row)
    return f"{metric} of {'points' if metric == 'SW2' else 'features'} to the target"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean over a centred window of a twentieth of the run, shorter at the ends."""
    half = len(values) // 40
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])
