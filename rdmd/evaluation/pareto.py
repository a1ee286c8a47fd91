"""The trade-off between faithfulness (cost) and realism (FID, or SW2 for points): both are to be small.

A generator is on the front if no other has measured values that are at least as small in both and smaller in one.
"""

from collections.abc import Sequence
from typing import Literal

from rdmd.evaluation.row import GENERATOR, Row

Point = tuple[float, float]
Rule = Literal["cheapest-near-best", "most-faithful", "most-realistic"]
# Realism worse than the best by more than this factor disqualifies from `cheapest-near-best`.
NEAR = 2.0


def nondominated(points: Sequence[Point]) -> list[bool]:
    """For each point, whether no other is at least as small in both coordinates and smaller in one.

    Equal points do not dominate each other: all copies of a point on the front are on it.
    """
    return [not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points) for x, y in points]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area that the points dominate below and to the left of `reference`; larger is better.

    Points that are not smaller than the reference in both coordinates add nothing.
    """
    area, ceiling = 0.0, reference[1]
    for x, y in sorted(set(points)):
        if x < reference[0] and y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return area


def cheapest_near_best(points: Sequence[Point], factor: float = NEAR) -> int:
    """The index of the point of least cost whose realism is at most `factor` times the best realism.

    The factor is a ratio, so that the far end of the front, where realism is many times the best, does not count:
    adding points of worse realism than `factor` times the best never changes the result. Of equally cheap points it is
    the more realistic one, then the first. Raises `ValueError` without points.
    """
    if not points:
        raise ValueError("there is no front without points")
    bound = factor * min(realism for _, realism in points)
    return min((cost, realism, index) for index, (cost, realism) in enumerate(points) if realism <= bound)[2]


def mark_front(rows: Sequence[Row]) -> list[Row]:
    """The rows in their order, with `on_front` set by (cost, realism) among generators and False elsewhere.

    Generators from noise have no cost: their front is the best realism. A generator whose realism could not be measured
    is not on the front.
    """
    generators = [index for index, row in enumerate(rows) if row.method == GENERATOR and row.realism is not None]
    flags = nondominated([_ranked(rows[index]) for index in generators])
    on_front = {index for index, flag in zip(generators, flags, strict=True) if flag}
    return [row.model_copy(update={"on_front": index in on_front}) for index, row in enumerate(rows)]


def pick(rows: Sequence[Row], rule: Rule, factor: float = NEAR) -> Row:
    """The row with `on_front` that `rule` names: `cheapest_near_best`, or the end of least cost or of best realism.

    Raises `ValueError` if no row has `on_front`.
    """
    front = [row for row in rows if row.on_front]
    if not front:
        raise ValueError("no generator is on the front")
    points = [_ranked(row) for row in front]
    match rule:
        case "cheapest-near-best":
            return front[cheapest_near_best(points, factor)]
        case "most-faithful":
            return front[points.index(min(points))]
        case "most-realistic":
            return front[points.index(min(points, key=lambda point: point[::-1]))]


def plane(row: Row) -> Point:
    """(cost, realism) of a row. Raises `ValueError` if the row lacks one."""
    if row.cost is None or row.realism is None:
        raise ValueError(f"the row of {row.method!r} has no cost or no realism")
    return row.cost, row.realism


def _ranked(row: Row) -> Point:
    """`plane`, with a cost of 0 for generators from noise, which have none."""
    return plane(row if row.cost is not None else row.model_copy(update={"cost": 0.0}))
