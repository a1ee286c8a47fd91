"""index.html: one page that opens from disk, without a network, on a desktop, a phone and paper."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from rdmd.evaluation.labels import interval, plus_minus, realism_name, row_labels
from rdmd.evaluation.pareto import Rule, hypervolume, pick, plane
from rdmd.evaluation.report.css import CSS
from rdmd.evaluation.report.realism_figure import has_costs
from rdmd.evaluation.report.validation_table import validation_html
from rdmd.evaluation.row import IDENTITY, TARGET, Metrics, Row
from rdmd.evaluation.table import Z95, columns, drifted, stated

_RULES: list[tuple[Rule, str]] = [
    ("most-faithful", "most faithful"),
    ("knee", "knee of the front"),
    ("most-realistic", "most realistic"),
]


@dataclass(frozen=True)
class Figures:
    """The page's pictures as PNG; None where there is nothing to draw."""

    pareto: bytes
    samples: bytes
    extremes: bytes | None
    curves: bytes | None


def page_html(metrics: Metrics, figures: Figures, validation: dict[str, Any] | None) -> str:
    """The whole page. Every text that comes from data is escaped."""
    title = f"RDMD: {metrics.experiment}"
    sections = [
        _opening(title, metrics),
        _section("Results", _table(metrics)),
        _section("Faithfulness against realism" if has_costs(metrics) else "Realism", _pareto(metrics, figures.pareto)),
        _section("Samples", _samples(figures)),
    ]
    if figures.curves is not None:
        text = "<p>Thin lines are what was logged, thick ones their running mean.</p>"
        sections.append(_section("Training", text + _picture(figures.curves, "Training curves of every run")))
    if validation is not None:
        sections.append(_section("Data validation", validation_html(validation)))
    sections.append(_section("How to reproduce", _reproduce(metrics)))
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _opening(title: str, metrics: Metrics) -> str:
    cards = []
    if any(row.on_front for row in metrics.rows):
        labels = row_labels(metrics.rows)
        for rule, name in _RULES if has_costs(metrics) else _RULES[-1:]:
            row = pick(metrics.rows, rule)
            label = labels[next(index for index, other in enumerate(metrics.rows) if other is row)]
            cards.append(_card(name, label, row))
    floor = next((row for row in metrics.rows if row.method == TARGET), None)
    if floor is not None:
        cards.append(_card("to be reached", "the target's training samples against its test samples", floor))
    return (
        f"<header>\n<h1>{escape(title)}</h1>\n"
        "<p>One-step unpaired translation by Regularized Distribution Matching Distillation: a generator for "
        "every λ, the weight of the transport cost, and baselines from the same teacher, all judged alike on "
        f'the test split.</p>\n<p class="stated">{escape(stated(metrics))}.</p>\n</header>\n'
        f'<div class="cards">{"".join(cards)}</div>'
    )


def _card(name: str, label: str, row: Row) -> str:
    metric = realism_name(row)
    lines = [f"{metric} {interval(row.realism, row.realism_ci)}"]
    if row.cost is not None:
        lines.append(f"cost {plus_minus(row.cost, None if row.cost_se is None else Z95 * row.cost_se)}")
    if row.nfe:
        lines.append(f"NFE {row.nfe}")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<div class="card"><p class="name">{escape(name)}</p><p class="which">{escape(label)}</p>'
        f"<ul>{items}</ul></div>"
    )


def _table(metrics: Metrics) -> str:
    shown = columns(metrics)
    labels = row_labels(metrics.rows)
    head = "".join(f'<th scope="col">{escape(column.heading)}</th>' for column in shown)
    lines = []
    for label, row in zip(labels, metrics.rows, strict=True):
        marks = ("● " if row.on_front else "") + ("⚠ " if drifted(row) else "")
        cells = "".join(f"<td>{escape(column.cell(row))}</td>" for column in shown)
        kind = "front" if row.on_front else "reference" if row.method in (IDENTITY, TARGET) else "other"
        lines.append(f'<tr class="{kind}"><th scope="row">{marks}{escape(label)}</th>{cells}</tr>')
    meanings = "".join(f"<dt>{escape(column.heading)}</dt><dd>{escape(column.meaning)}</dd>" for column in shown)
    notes = "<p>● on the front: no other generator is better in both cost and realism.</p>"
    if any(drifted(row) for row in metrics.rows):
        notes += (
            "<p>⚠ costs more than exact transport to the target. An exact minimiser never does, whatever its "
            "λ: this generator has drifted, which is an optimisation failure.</p>"
        )
    return (
        '<div class="scroll" role="region" aria-label="Results" tabindex="0"><table>\n'
        f'<thead><tr><th scope="col">method</th>{head}</tr></thead>\n<tbody>\n' + "\n".join(lines) + "\n</tbody>\n"
        f"</table></div>\n{notes}\n<details><summary>What the columns mean</summary>\n"
        f"<dl>{meanings}</dl></details>"
    )


def _pareto(metrics: Metrics, pareto: bytes) -> str:
    if not has_costs(metrics):
        text = "<p>The source is noise, which nothing can be faithful to: realism is all there is. Left is better.</p>"
        return _picture(pareto, "Every method by realism") + text
    shares = "".join(f"<li>{escape(name)}: {100 * share:.0f}%</li>" for name, share in _dominated(metrics))
    text = (
        "<p>Down and to the left is better. One number for a method's whole curve is the area that it "
        "dominates, as a share of the box between the origin and the worst cost and realism in the table "
        "(hypervolume):</p>"
        f"<ul>{shares}</ul>"
    )
    return _picture(pareto, "Every method on the plane of cost and realism") + (text if shares else "")


def _dominated(metrics: Metrics) -> Iterator[tuple[str, float]]:
    """The hypervolume of each method's rows, as a share of the box of all rows."""
    placed = [row for row in metrics.rows if row.cost is not None and row.realism is not None]
    if not placed:
        return
    worst = (max(plane(row)[0] for row in placed), max(plane(row)[1] for row in placed))
    if worst[0] <= 0 or worst[1] <= 0:
        return
    for method in dict.fromkeys(row.method for row in placed if row.method not in (IDENTITY, TARGET)):
        points = [plane(row) for row in placed if row.method == method]
        name = row_labels([row for row in placed if row.method == method][:1])[0].split(",")[0]
        yield name, hypervolume(points, worst) / (worst[0] * worst[1])


def _samples(figures: Figures) -> str:
    text = _picture(figures.samples, "Source samples and every method's translations of them")
    if figures.extremes is not None:
        text += "<h3>The best and the worst by cost, at the knee of the front</h3>"
        text += _picture(figures.extremes, "The translations that changed least and most")
    return text


def _reproduce(metrics: Metrics) -> str:
    experiment = escape(metrics.experiment)
    return (
        "<p>From a clone of the repository at the same commit:</p>\n"
        f"<pre>rdmd use {experiment}\nmake repro</pre>\n"
        f"<p>The seed is {metrics.seed} (<code>seed</code> in params.yaml). The numbers of this page stand "
        "in <code>metrics.json</code> and <code>pareto.csv</code> beside it. Equal numbers bit for bit need "
        "the same machine and library versions.</p>"
    )


def _picture(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    image = f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
    return f'<figure><div class="scroll">{image}</div></figure>'
