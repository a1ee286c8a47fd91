"""The report's files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rdmd.evaluation.labels import row_labels
from rdmd.evaluation.pareto import pick
from rdmd.evaluation.report.contents import Account, Curve, ImageSamples, Panel, ReportSamples
from rdmd.evaluation.report.curves_figure import curves_png
from rdmd.evaluation.report.image_figures import extremes_png, samples_png
from rdmd.evaluation.report.page import Figures, page_html
from rdmd.evaluation.report.pareto_figure import pareto_plot
from rdmd.evaluation.report.point_figure import point_samples_png
from rdmd.evaluation.report.realism_figure import has_costs, realism_plot
from rdmd.evaluation.row import Metrics, Row
from rdmd.files import replacing, write_text


def write_report(
    metrics: Metrics,
    samples: ReportSamples,
    curves: Sequence[Curve],
    validation: dict[str, Any] | None,
    account: Account,
    out: Path,
) -> None:
    """Write pareto.png, samples.png and index.html into `out`, each whole or not at all.

    pareto.png shows realism alone where no row has a cost. `validation` is what reports/validation.json holds. The
    same arguments give the same bytes. index.html holds its pictures and refers to nothing outside itself.
    """
    front = pareto_plot(metrics) if has_costs(metrics) else realism_plot(metrics)
    extremes: list[tuple[str, bytes]] = []
    if isinstance(samples, ImageSamples):
        shown = samples_png(samples, metrics.rows)
        labels = {id(row): label for row, label in zip(metrics.rows, row_labels(metrics.rows), strict=True)}
        extremes = [(labels[id(row)], extremes_png(samples, panel)) for row, panel in _comparable(metrics, samples)]
    else:
        shown = point_samples_png(samples, metrics.rows)
    drawn = [curve for curve in curves if curve.steps and curve.values]
    figures = Figures(front=front, samples=shown, extremes=extremes, curves=curves_png(drawn) if drawn else None)
    _write_bytes(out / "pareto.png", front.png)
    _write_bytes(out / "samples.png", shown)
    write_text(out / "index.html", page_html(metrics, figures, validation, account))


def _comparable(metrics: Metrics, samples: ImageSamples) -> Iterator[tuple[Row, Panel]]:
    """One setting of each method: the knee of the generators' front, and of every other method the setting whose cost
    is nearest to it. None where no generator has a cost."""
    if not any(row.on_front and row.cost is not None for row in metrics.rows):
        return
    knee = pick(metrics.rows, "knee")
    shown = [(row, panel) for row in metrics.rows for panel in samples.panels if panel.row == row]
    for method in dict.fromkeys(row.method for row, _ in shown):
        alike = [(row, panel) for row, panel in shown if row.method == method and row.cost is not None]
        if alike:
            yield min(alike, key=lambda pair: abs((pair[0].cost or 0.0) - (knee.cost or 0.0)))


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
