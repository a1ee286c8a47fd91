"""The Pareto front of generators whose numbers are uncertain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rdmd.errors import UserError
from rdmd.evaluation.pareto import nondominated, plane
from rdmd.evaluation.row import GENERATOR, Interval, Row

How = Literal["intervals", "points"]
# Half the width of a 95% interval in standard errors, rounded up.
STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Box:
    """Where a generator may lie: an interval of the transport cost and one of FID (SW2 for points)."""

    cost: Interval
    realism: Interval


def box(row: Row) -> Box:
    """The row's intervals: cost +- 2 `cost_se`, and the bootstrap interval of its realism.

    Either shrinks to the measured value where no interval was measured, and is widened to hold the measured value,
    which a bootstrap interval may miss. Raises `ValueError` if the row has no cost or no realism.
    """
    cost, realism = plane(row)
    spread = STANDARD_ERRORS * (row.cost_se or 0.0)
    low, high = row.realism_ci or (realism, realism)
    return Box((cost - spread, cost + spread), (min(low, realism), max(high, realism)))


def front(rows: Sequence[Row], how: How) -> list[bool]:
    """For each row, whether it is on the front of (cost, realism), both to be small.

    `points`: no other's measured values are at least as good in both and better in one. `intervals`: no other's whole
    box lies at or below this one's in both. The second front holds the first, and equals it where no interval has
    any width. Raises `UserError` if the test split was too small for the realism of any.
    """
    if any(row.realism is None for row in rows):
        raise UserError("the realism of the generators was not measured, since the test split of the source or of the "
                        "target has a single sample; add samples, then repeat `dvc repro`.")
    if how == "points":
        return nondominated([plane(row) for row in rows])
    boxes = [box(row) for row in rows]
    return [not any(_surely_better(other, one) for other in boxes) for one in boxes]


def registered(rows: Sequence[Row], how: How) -> list[bool]:
    """For each row of an evaluation, whether the stage `register` makes a version of it: the generators on `front`.

    A generator without a cost (its source is noise) or without a realism is not registered.
    """
    candidates = [
        index
        for index, row in enumerate(rows)
        if row.method == GENERATOR and row.cost is not None and row.realism is not None
    ]
    flags = front([rows[index] for index in candidates], how)
    chosen = {index for index, flag in zip(candidates, flags, strict=True) if flag}
    return [index in chosen for index in range(len(rows))]


def _surely_better(a: Box, b: Box) -> bool:
    not_worse = a.cost[1] <= b.cost[0] and a.realism[1] <= b.realism[0]
    return not_worse and (a.cost[1] < b.cost[0] or a.realism[1] < b.realism[0])
