"""pareto.png: every method on the plane of faithfulness and realism, with intervals."""

import textwrap
from typing import TYPE_CHECKING

from rdmd.evaluation.labels import dial, method_name, realism_name, varying_dials
from rdmd.evaluation.pareto import nondominated, plane
from rdmd.evaluation.report.label_placement import Label, place_labels
from rdmd.evaluation.report.plot import Plot, empty_plot, plot_of
from rdmd.evaluation.report.style import FAINT, INK, new_figure, styles
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, Metrics, Row
from rdmd.evaluation.table import Z95, stated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From this ratio of largest to smallest realism on, the axis is logarithmic.
_LOG_FROM = 8


def pareto_plot(metrics: Metrics) -> Plot:
    """The figure. Down and left is better. It says so where no row has both a cost and a realism."""
    placed = [row for row in metrics.rows if row.cost is not None and row.realism is not None]
    if not placed:
        return empty_plot("No method has both a cost and a realism.")
    figure = new_figure(7.6, 5.6)
    axes = figure.add_axes((0.105, 0.2, 0.87, 0.68))
    labels: list[Label] = []
    lines: list[list[tuple[float, float]]] = []
    methods = [row.method for row in placed if row.method != IDENTITY]
    for method, style in styles(methods).items():
        rows = sorted((row for row in placed if row.method == method), key=lambda row: row.cost or 0.0)
        if not rows:
            continue
        # A grid of several dials has more points than there is room for words; the table names them.
        grid = method != GENERATOR and len(varying_dials(rows[0], metrics.rows)) > 1
        joined = _front(rows) if grid else [row for row in rows if row.on_front or method != GENERATOR]
        axes.plot(
            [row.cost for row in joined],
            [row.realism for row in joined],
            linestyle=style.line,
            color=style.colour,
            linewidth=1.6 if method == GENERATOR else 1.1,
            zorder=2,
        )
        lines.append([plane(row) for row in joined])
        for row in rows:
            filled = any(row is other for other in joined)
            _mark(axes, row, style.marker, style.colour, filled)
            text = "" if grid else dial(row, metrics.rows)
            labels.append(Label(row.cost or 0.0, row.realism or 0.0, text, style.colour))
        evaluations = sorted({row.nfe for row in rows})
        nfe = str(evaluations[0]) if len(evaluations) == 1 else f"{evaluations[0]} to {evaluations[-1]}"
        axes.plot(
            [],
            [],
            linestyle=style.line,
            marker=style.marker,
            color=style.colour,
            label=f"{method_name(method)} (NFE {nfe})",
        )
    _references(axes, metrics, placed)
    _axes(axes, placed)
    place_labels(axes, labels, lines + _bars(placed))
    figure.text(0.02, 0.015, _caption(metrics), fontsize=7.5, color="#444444", va="bottom", linespacing=1.35)
    return plot_of(figure, axes, [(*plane(row), row) for row in placed])


def _front(rows: list[Row]) -> list[Row]:
    """The rows of one method that no other of it is better than."""
    return [row for row, best in zip(rows, nondominated([plane(row) for row in rows]), strict=True) if best]


def _mark(axes: "Axes", row: Row, marker: str, colour: str, filled: bool) -> None:
    low_high = None
    if row.realism_ci is not None and row.realism is not None:
        low, high = row.realism_ci
        low_high = [[max(0.0, row.realism - low)], [max(0.0, high - row.realism)]]
    axes.errorbar(
        [row.cost],
        [row.realism],
        xerr=None if row.cost_se is None else Z95 * row.cost_se,
        yerr=low_high,
        fmt=marker,
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=6.5,
        elinewidth=0.9,
        capsize=2.2,
        zorder=3,
    )


def _bars(placed: list[Row]) -> list[list[tuple[float, float]]]:
    """The realism intervals as lines."""
    return [[(row.cost or 0.0, end) for end in row.realism_ci] for row in placed if row.realism_ci is not None]


def _references(axes: "Axes", metrics: Metrics, placed: list[Row]) -> None:
    """The ends of the scale: the source as it is, the target itself, the least cost of an exact map."""
    for row in placed:
        if row.method == IDENTITY:
            _mark(axes, row, "X", INK, True)
            axes.plot([], [], "X", color=INK, label=method_name(IDENTITY))
    for row in metrics.rows:
        if row.method == TARGET and row.realism is not None:
            axes.axhline(row.realism, color=FAINT, linestyle=(0, (1, 1.5)), linewidth=1.6, zorder=1)
            if row.realism_ci is not None:
                axes.axhspan(*row.realism_ci, color=FAINT, alpha=0.16, linewidth=0, zorder=0)
            axes.plot([], [], linestyle=(0, (1, 1.5)), color=FAINT, label="target's train against test")
    exact = next((row for row in placed if row.ot_cost is not None and row.cost_sum and row.cost), None)
    if exact is not None and exact.ot_cost is not None and exact.cost_sum and exact.cost:
        least = exact.ot_cost * exact.cost / exact.cost_sum
        axes.axvline(least, color=INK, linestyle=(0, (6, 3)), linewidth=0.9, zorder=1)
        axes.plot([], [], linestyle=(0, (6, 3)), color=INK, linewidth=0.9, label="cost of exact transport")


def _axes(axes: "Axes", placed: list[Row]) -> None:
    metric = realism_name(placed[0])
    values = [row.realism for row in placed if row.realism]
    if values and max(values) / min(values) > _LOG_FROM:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    span = max(row.cost or 0.0 for row in placed) or 1.0
    axes.set_xlim(-0.05 * span, 1.12 * span)
    kind = "features" if metric == "FID" else "points"
    axes.set_xlabel("cost: squared difference to the source, mean over dimensions  (faithful ←)", fontsize=9)
    axes.set_ylabel(f"{metric} of {kind} to the target  (realistic ↓)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3)


def _caption(metrics: Metrics) -> str:
    front = "Filled: the front of a method, or every setting of one dial; hollow: dominated."
    bars = "Bars: 95% intervals (realism by bootstrap, cost by its standard error)."
    return textwrap.fill(f"{metrics.experiment}: {stated(metrics)}. {front} {bars}", width=128)
