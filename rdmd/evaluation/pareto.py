"""The trade-off between faithfulness (cost) and realism (FID, or SW2 for points): both are to be small."""

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
    return [not any(_dominates(other, point) for other in points) for point in points]


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
    """The index of the point of the front nearest to the front's ideal corner, each axis scaled to the
    front's span.

    Of equally near points it is the one with the smaller first coordinate, then the earlier one. Raises
    `ValueError` if there are no points.
    """
    front = [index for index, on_front in enumerate(nondominated(points)) if on_front]
    if not front:
        raise ValueError("there is no front without points")
    lows = [min(points[index][axis] for index in front) for axis in (0, 1)]
    spans = [max(points[index][axis] for index in front) - lows[axis] for axis in (0, 1)]

    def distance(index: int) -> float:
        return math.hypot(
            *((points[index][axis] - lows[axis]) / spans[axis] if spans[axis] > 0 else 0.0 for axis in (0, 1))
        )

    return min(front, key=lambda index: (distance(index), points[index][0], index))


def mark_front(rows: Sequence[Row]) -> list[Row]:
    """The rows in their order, `on_front` set by (cost, realism) among generators, False elsewhere.

    Generators from noise have no cost: their front is the best realism. A generator whose realism could not be measured
    is not on the front.
    """
    generators = [index for index, row in enumerate(rows) if row.method == GENERATOR and row.realism is not None]
    flags = nondominated([_ranked(rows[index]) for index in generators])
    on_front = {index for index, flag in zip(generators, flags, strict=True) if flag}
    return [row.model_copy(update={"on_front": index in on_front}) for index, row in enumerate(rows)]


def pick(rows: Sequence[Row], rule: Rule) -> Row:
    """The generator that `rule` names: the knee of the front, or the front's end of least cost or of best
    realism.

    Raises `ValueError` if no row is on the front.
    """
    front = [row for row in rows if row.on_front]
    if not front:
        raise ValueError("no generator is on the front")
    points = [_ranked(row) for row in front]
    match rule:
        case "knee":
            return front[knee(points)]
        case "most-faithful":
            return front[min(range(len(front)), key=lambda index: points[index])]
        case "most-realistic":
            return front[min(range(len(front)), key=lambda index: points[index][::-1])]


def plane(row: Row) -> Point:
    """(cost, realism) of a row. Raises `ValueError` if the row lacks one."""
    if row.cost is None or row.realism is None:
        raise ValueError(f"the row of {row.method!r} has no cost or no realism")
    return row.cost, row.realism


def _ranked(row: Row) -> Point:
    """`plane`, with one cost for all generators from noise, which have none."""
    return plane(row if row.cost is not None else row.model_copy(update={"cost": 0.0}))


def _dominates(a: Point, b: Point) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b
