"""The trade-off between faithfulness (cost) and realism (FID, or SW2 for points): both are to be small.

Here a point is on the front if no other measured point is better. `Row.on_front` and the curves of figures use this
front. The generators that the stage `register` registers are on the front of `rdmd.evaluation.selection`, which by
default also considers the intervals of the measurements.
"""

import math
from collections.abc import Sequence
from typing import Literal

from rdmd.evaluation.row import GENERATOR, Row

Point = tuple[float, float]
Rule = Literal["knee", "most-faithful", "most-realistic"]


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


def knee(points: Sequence[Point]) -> int:
    """The index of the front's point nearest to the front's ideal corner, with each axis scaled to the front's span.

    Of equally near points the result is the first with the smallest first coordinate. Raises `ValueError` without
    points.
    """
    front = [index for index, on_front in enumerate(nondominated(points)) if on_front]
    if not front:
        raise ValueError("there is no front without points")
    lows = [min(points[index][axis] for index in front) for axis in (0, 1)]
    # An axis without extent moves no point from the corner.
    spans = [max(points[index][axis] for index in front) - lows[axis] or math.inf for axis in (0, 1)]

    def distance(index: int) -> float:
        return math.hypot(*((points[index][axis] - lows[axis]) / spans[axis] for axis in (0, 1)))

    return min(front, key=lambda index: (distance(index), points[index][0], index))


def mark_front(rows: Sequence[Row]) -> list[Row]:
    """The rows in their order, with `on_front` set by (cost, realism) among generators and False elsewhere.

    Generators from noise have no cost: their front is the best realism. A generator whose realism could not be measured
    is not on the front.
    """
    generators = [index for index, row in enumerate(rows) if row.method == GENERATOR and row.realism is not None]
    flags = nondominated([_ranked(rows[index]) for index in generators])
    on_front = {index for index, flag in zip(generators, flags, strict=True) if flag}
    return [row.model_copy(update={"on_front": index in on_front}) for index, row in enumerate(rows)]


def pick(rows: Sequence[Row], rule: Rule) -> Row:
    """The row with `on_front` that `rule` names: the knee, or the end of least cost or of best realism.

    Raises `ValueError` if no row has `on_front`.
    """
    front = [row for row in rows if row.on_front]
    if not front:
        raise ValueError("no generator is on the front")
    points = [_ranked(row) for row in front]
    match rule:
        case "knee":
            return front[knee(points)]
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
