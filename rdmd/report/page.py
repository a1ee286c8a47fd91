"""The report: two figures as files, and one page that holds all figures and needs no network."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdmd.evaluation.row import COUNTERPART, IDENTITY, TARGET, Metrics, Row
from rdmd.evaluation.selection import Rule, hypervolume, pick, plane
from rdmd.evaluation.table import (
    FRONT_NOTE,
    columns,
    drifted,
    measured_realism,
    method_name,
    number,
    row_label,
    summary,
)
from rdmd.files import replacing, write_text
from rdmd.report.figures import curves_figure, metrics_figure
from rdmd.report.samples import Samples, extremes_figure, samples_figure
from rdmd.report.style import png_bytes
from rdmd.training.run_folder import Point

# Training times have a table of their own.
_TRAINING = "training s"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model: training time in seconds, device, optimizer steps, peak memory in MiB, training curve.

    Steps and memory are None, and the curve has no points, if the folder of the training run no longer exists.
    """

    name: str
    seconds: float
    device: str
    steps: int | None = None
    memory_mib: float | None = None
    curve: Sequence[Point] = ()


@dataclass(frozen=True)
class Provenance:
    """How the numbers of a report came about.

    `facts` are pairs (name, sentence). `settings` is YAML. `commit` is the commit of the code, None outside git;
    `edited` tells whether files differed from that commit.
    """

    facts: list[tuple[str, str]]
    settings: str
    models: list[TrainedModel]
    commit: str | None
    edited: bool


def write_report(
    metrics: Metrics,
    samples: Samples,
    provenance: Provenance,
    validation: dict[str, Any] | None,
    out: Path,
) -> None:
    """Write pareto.png, samples.png and index.html into `out`, each whole or not at all.

    `validation` is the content of reports/validation.json, None if the data were not validated. Equal arguments give
    equal bytes.
    """
    rows = metrics.rows
    front_png = png_bytes(metrics_figure(metrics))
    samples_png = png_bytes(samples_figure(samples, rows))
    curves = {model.name: model.curve for model in provenance.models if model.curve}
    page = _render(
        metrics=metrics,
        provenance=provenance,
        validation=validation,
        summary=summary(metrics),
        front_png=front_png,
        samples_png=samples_png,
        curves_png=png_bytes(curves_figure(curves)) if curves else None,
        has_costs=any(row.cost is not None for row in rows),
        ends=list(_ends(rows)),
        dominated=list(_dominated(rows)),
        columns=[column for column in columns(metrics) if column.heading != _TRAINING],
        lines=list(_lines(rows)),
        realism=measured_realism(rows),
        front_note=FRONT_NOTE if any(row.on_front and row.cost is not None for row in rows) else None,
        n_shown=len(samples.source),
        extremes=list(_extremes(rows, samples)),
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, png in (("pareto.png", front_png), ("samples.png", samples_png)):
        with replacing(out / name) as temporary:
            temporary.write_bytes(png)
    write_text(out / "index.html", page)


def _render(**values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Autoescape is on for every template: text from the data never becomes markup.
    environment = Environment(
        loader=PackageLoader("rdmd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    environment.filters["data_uri"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    return environment.get_template("page.html.j2").render(**values)


def _lines(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The lines of the tables of results; `kind` is the CSS class."""
    for row in rows:
        references = (COUNTERPART, IDENTITY, TARGET)
        kind = "front" if row.on_front else "reference" if row.method in references else "other"
        yield {"row": row, "label": row_label(row, rows), "kind": kind, "drifted": drifted(row)}


def _ends(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """The generators that the rules of `pick` name: (rule, label)."""
    if not any(row.on_front for row in rows):
        return
    rules: tuple[Rule, ...] = ("most-faithful", "cheapest-near-best", "most-realistic")
    for rule in rules:
        yield rule.replace("-", " "), row_label(pick(rows, rule), rows)


def _dominated(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """The hypervolume of each method, as a share of the box from the origin to the worst cost and realism."""
    placed = [row for row in rows if row.cost is not None and row.realism is not None]
    worst = tuple(max((plane(row)[axis] for row in placed), default=0.0) for axis in (0, 1))
    if min(worst) <= 0:
        return
    for method in dict.fromkeys(row.method for row in placed if row.method not in (IDENTITY, TARGET)):
        points = [plane(row) for row in placed if row.method == method]
        yield method_name(method), hypervolume(points, (worst[0], worst[1])) / (worst[0] * worst[1])


def _extremes(rows: Sequence[Row], samples: Samples) -> Iterator[tuple[str, bytes]]:
    """A label and a figure for each method: RDMD at the choice of `cheapest-near-best`, any other method at the setting
    with the nearest cost."""
    if not samples.are_images or not any(row.on_front and row.cost is not None for row in rows):
        return
    middle, _ = plane(pick(rows, "cheapest-near-best"))
    for method in dict.fromkeys(row.method for row, _ in samples.translations):
        alike = [(row, images) for row, images in samples.translations if row.method == method and row.cost is not None]
        if alike:
            row, images = min(alike, key=lambda pair: abs((pair[0].cost or 0.0) - middle))
            yield row_label(row, rows), png_bytes(extremes_figure(samples.source, images))
