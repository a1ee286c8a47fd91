"""The tables of results: what a first look needs, then every other metric."""

from html import escape

from rdmd.evaluation.labels import row_labels
from rdmd.evaluation.report.html import line, table
from rdmd.evaluation.row import IDENTITY, TARGET, Metrics, Row
from rdmd.evaluation.table import ONLY_IN_REPORT, Column, columns, drifted

# Has a section of its own.
_TRAINING = "training s"


def results_html(metrics: Metrics) -> str:
    """The columns that the terminal shows too, what their marks mean, the other columns, and all their meanings."""
    every = [column for column in columns(metrics) if column.heading != _TRAINING]
    first = [column for column in every if column.heading not in ONLY_IN_REPORT]
    other = [column for column in every if column.heading in ONLY_IN_REPORT]
    notes = "<p>● on the front: no other generator is better in both cost and realism.</p>"
    if any(drifted(row) for row in metrics.rows):
        notes += (
            "<p>⚠ costs more than exact transport to the target. An exact minimiser never does, whatever its "
            "λ: this generator has drifted, which is an optimisation failure.</p>"
        )
    more = f"<h3>More metrics</h3>\n{_table('More metrics', metrics, other)}\n" if other else ""
    meanings = "".join(f"<dt>{escape(column.heading)}</dt><dd>{escape(column.meaning)}</dd>" for column in every)
    return (
        f"{_table('Results', metrics, first)}\n{notes}\n{more}"
        f"<details><summary>What the columns mean</summary>\n<dl>{meanings}</dl></details>"
    )


def _table(name: str, metrics: Metrics, shown: list[Column]) -> str:
    lines = [
        line(f"{_marks(row)}{label}", [column.cell(row) for column in shown], _kind(row))
        for label, row in zip(row_labels(metrics.rows), metrics.rows, strict=True)
    ]
    return table(name, ["method", *(column.heading for column in shown)], lines)


def _marks(row: Row) -> str:
    return ("● " if row.on_front else "") + ("⚠ " if drifted(row) else "")


def _kind(row: Row) -> str:
    return "front" if row.on_front else "reference" if row.method in (IDENTITY, TARGET) else "other"
