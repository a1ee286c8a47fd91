"""What was compared when a version was promoted, as the text of its description."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion

from rdmd import config
from rdmd.evaluation.labels import interval, number, plus_minus, realism_name
from rdmd.evaluation.row import Row
from rdmd.selection.front import STANDARD_ERRORS, front
from rdmd.selection.identity import Evaluation
from rdmd.selection.rules import bounds


@dataclass(frozen=True)
class Contender:
    """A registered version with its row of an evaluation that all who are compared share."""

    version: ModelVersion
    row: Row


def description(
    champion: Contender,
    contenders: Sequence[Contender],
    rules: config.Register,
    evaluation: Evaluation,
    heading: str,
    footing: str,
) -> str:
    """Markdown: who was compared on what, and what is said against each. The champion is one of the contenders."""
    verdicts = judge(contenders, rules)
    metric = realism_name(champion.row)
    lines = [
        heading,
        "",
        f"Measured on {evaluation.short}.",
        "",
        f"| version | lambda | {metric} [95%] | cost ± {STANDARD_ERRORS:g} se | seconds per image | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for one, verdict in zip(contenders, verdicts, strict=True):
        mark = "champion, " if one.version.version == champion.version.version else ""
        lines.append("| " + " | ".join([str(one.version.version), *cells(one.row), mark + verdict]) + " |")
    return "\n".join([*lines, "", footing])


def cells(row: Row) -> list[str]:
    """A row's lambda, realism, cost and time as people read them."""
    spread = None if row.cost_se is None else STANDARD_ERRORS * row.cost_se
    lam = "–" if row.lam is None else f"{row.lam:g}"
    return [lam, interval(row.realism, row.realism_ci), plus_minus(row.cost, spread), number(row.seconds_per_image)]


def judge(contenders: Sequence[Contender], rules: config.Register) -> list[str]:
    """For each, whether it is on the front, and the bounds that it breaks."""
    rows = [one.row for one in contenders]
    verdicts = []
    for row, on_front in zip(rows, front(rows, rules.front), strict=True):
        broken = [f"breaks {bound}" for bound in bounds(rules) if bound.excess(row) > 1]
        verdicts.append(", ".join(["on the front" if on_front else "dominated", *broken]))
    return verdicts
