"""pareto.png where no method has a cost, as from noise: realism alone, with intervals."""

import textwrap

from rdmd.evaluation.labels import dial, method_name, realism_name
from rdmd.evaluation.report.plot import Plot, empty_plot, plot_of
from rdmd.evaluation.report.style import FAINT, INK, new_figure, styles
from rdmd.evaluation.row import TARGET, Metrics, Row
from rdmd.evaluation.table import stated


def has_costs(metrics: Metrics) -> bool:
    """Whether any row has a transport cost; none has where the source is noise."""
    return any(row.cost is not None for row in metrics.rows)


def realism_plot(metrics: Metrics) -> Plot:
    """A line a method, its realism along it. Left is better. It says so where no row has a realism."""
    placed = [row for row in metrics.rows if row.method != TARGET and row.realism is not None]
    if not placed:
        return empty_plot("No method has a realism.")
    looks = styles([row.method for row in placed])
    figure = new_figure(7.6, 1.9 + 0.45 * len(placed))
    axes = figure.subplots()
    for line, row in enumerate(placed):
        look = looks[row.method]
        axes.errorbar(
            [row.realism], [line], xerr=_interval(row), fmt=look.marker, color=look.colour, markersize=7, capsize=3
        )
    for row in metrics.rows:
        if row.method == TARGET and row.realism is not None:
            axes.axvline(row.realism, color=FAINT, linestyle=(0, (1, 1.5)), label="target's train against test")
            if row.realism_ci is not None:
                axes.axvspan(*row.realism_ci, color=FAINT, alpha=0.16, linewidth=0)
            axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 1.0))
    axes.set_yticks(range(len(placed)), [_named(row, metrics.rows) for row in placed], fontsize=9, color=INK)
    axes.set_ylim(len(placed) - 0.5, -0.5)
    axes.set_xlim(left=0)
    kind = "features" if realism_name(placed[0]) == "FID" else "points"
    axes.set_xlabel(f"{realism_name(placed[0])} of {kind} to the target  (← realistic)", fontsize=9)
    axes.grid(True, axis="x", color="#e6e6e6", linewidth=0.6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout(rect=(0, 0.42 / figure.get_figheight(), 1, 1))
    text = textwrap.fill(f"{metrics.experiment}: {stated(metrics)}. Bars: 95% bootstrap intervals.", width=120)
    figure.text(0.02, 0.015, text, fontsize=7.5, color="#444444", va="bottom", linespacing=1.35)
    return plot_of(figure, axes, [(row.realism or 0.0, line, row) for line, row in enumerate(placed)])


def _named(row: Row, rows: list[Row]) -> str:
    return "\n".join(filter(None, [method_name(row.method), f"{dial(row, rows)}, NFE {row.nfe}".strip(", ")]))


def _interval(row: Row) -> list[list[float]] | None:
    if row.realism_ci is None or row.realism is None:
        return None
    low, high = row.realism_ci
    return [[max(0.0, row.realism - low)], [max(0.0, high - row.realism)]]
