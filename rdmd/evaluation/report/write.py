"""The report's files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdmd.evaluation.pareto import pick
from rdmd.evaluation.report.contents import Curve, ImageSamples, Panel, ReportSamples
from rdmd.evaluation.report.curves_figure import curves_png
from rdmd.evaluation.report.image_figures import extremes_png, samples_png
from rdmd.evaluation.report.page import Figures, page_html
from rdmd.evaluation.report.pareto_figure import pareto_png
from rdmd.evaluation.report.point_figure import point_samples_png
from rdmd.evaluation.report.realism_figure import has_costs, realism_png
from rdmd.evaluation.row import Metrics
from rdmd.files import replacing, write_text


def write_report(
    metrics: Metrics,
    samples: ReportSamples,
    curves: Sequence[Curve],
    validation: dict[str, Any] | None,
    out: Path,
) -> None:
    """Write pareto.png, samples.png and index.html into `out`, each whole or not at all.

    pareto.png shows realism alone where no row has a cost. `validation` is what reports/validation.json holds. The
    same arguments give the same bytes. index.html holds its pictures and refers to nothing outside itself.
    """
    pareto = pareto_png(metrics) if has_costs(metrics) else realism_png(metrics)
    extremes = None
    if isinstance(samples, ImageSamples):
        shown = samples_png(samples, metrics.rows)
        panel = _panel_of_knee(metrics, samples) if has_costs(metrics) else None
        extremes = None if panel is None else extremes_png(samples, panel)
    else:
        shown = point_samples_png(samples, metrics.rows)
    drawn = [curve for curve in curves if curve.steps and curve.values]
    figures = Figures(pareto=pareto, samples=shown, extremes=extremes, curves=curves_png(drawn) if drawn else None)
    _write_bytes(out / "pareto.png", pareto)
    _write_bytes(out / "samples.png", shown)
    write_text(out / "index.html", page_html(metrics, figures, validation))


def _panel_of_knee(metrics: Metrics, samples: ImageSamples) -> Panel | None:
    if not any(row.on_front for row in metrics.rows):
        return None
    knee = pick(metrics.rows, "knee")
    return next((p for p in samples.panels if (p.row.method, p.row.lam) == (knee.method, knee.lam)), None)


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
