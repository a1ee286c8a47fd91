"""index.html: one page that opens from disk, without a network, on a desktop, a phone and paper."""

from dataclasses import dataclass
from html import escape
from typing import Any

from rdmd.evaluation.labels import interval, plus_minus, realism_name, row_labels
from rdmd.evaluation.pareto import Rule, pick
from rdmd.evaluation.report.account_html import reproduce_html, run_html, timings_html
from rdmd.evaluation.report.contents import Account
from rdmd.evaluation.report.css import CSS
from rdmd.evaluation.report.front_html import front_html
from rdmd.evaluation.report.html import figure, section
from rdmd.evaluation.report.plot import Plot
from rdmd.evaluation.report.realism_figure import has_costs
from rdmd.evaluation.report.results_html import results_html
from rdmd.evaluation.report.validation_table import validation_html
from rdmd.evaluation.row import TARGET, Metrics, Row
from rdmd.evaluation.table import Z95, stated

_RULES: list[tuple[Rule, str]] = [
    ("most-faithful", "most faithful"),
    ("knee", "knee of the front"),
    ("most-realistic", "most realistic"),
]


@dataclass(frozen=True)
class Figures:
    """The page's pictures as PNG. `extremes` are a method's most and least changed pictures, by its label; `curves` is
    None where there are none."""

    front: Plot
    samples: bytes
    extremes: list[tuple[str, bytes]]
    curves: bytes | None


def page_html(metrics: Metrics, figures: Figures, validation: dict[str, Any] | None, account: Account) -> str:
    """The whole page. Every text that comes from data is escaped."""
    title = f"RDMD: {metrics.experiment}"
    plane = "Faithfulness against realism" if has_costs(metrics) else "Realism"
    sections = [
        _opening(title, metrics),
        section("What was run", run_html(account)),
        section("Results", results_html(metrics)),
        section(plane, front_html(metrics, figures.front)),
        section("Samples", figure(figures.samples, "Source samples and every method's translations of them")),
    ]
    if figures.extremes:
        sections.append(section("The best and the worst by cost", _extremes(figures.extremes)))
    sections += [
        section("Training", _curves(figures.curves, account)),
        section("Timings", timings_html(account, metrics)),
        section("Data validation", _validation(validation)),
        section("How to reproduce", reproduce_html(account, metrics)),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


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


def _extremes(extremes: list[tuple[str, bytes]]) -> str:
    text = ("<p>Of the sources shown here, those that each method changed least and most. RDMD is taken at the knee of "
            "its front, every other method at the setting whose cost is nearest to that.</p>")
    pictures = [
        f"<h3>{escape(label)}</h3>{figure(png, f'The translations that {label} changed least and most')}"
        for label, png in extremes
    ]
    return text + "\n".join(pictures)


def _curves(png: bytes | None, account: Account) -> str:
    text = ""
    if png is not None:
        text = "<p>Thin lines are what was logged, thick ones their running mean.</p>"
        text += figure(png, "Training curves of every run")
    if account.without_curves:
        names = escape(", ".join(account.without_curves))
        text += (f"<p>Not available: the curves of {names}, whose runs were not in <code>runs/</code> where this page "
                 "was made.</p>")
    return text


def _validation(validation: dict[str, Any] | None) -> str:
    return "<p>Not available: the data were not validated.</p>" if validation is None else validation_html(validation)
