"""Labels beside points, where they hide neither each other nor the points."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

# Where a label may stand, in points from its mark, best first: (x, y, horizontal, vertical alignment).
_PLACES = [
    (-7, -6, "right", "top"),
    (7, 6, "left", "bottom"),
    (7, -6, "left", "top"),
    (-7, 6, "right", "bottom"),
    (11, 0, "left", "center"),
    (-11, 0, "right", "center"),
    (9, 18, "left", "bottom"),
    (9, -20, "left", "top"),
    (-9, -20, "right", "top"),
]
_MARK_RADIUS = 9.0
# Square pixels of hiding that a pixel is worth by which another mark is nearer to a label than its own.
_MISREAD = 60.0


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y) in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


def place_labels(axes: "Axes", labels: Sequence[Label], lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Write every label at the first place where it is free, or else where it hides least.

    `lines` are the polylines that labels should keep off, in data coordinates. Call it last: limits and scales
    must be final.
    """
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    marks = [axes.transData.transform((label.x, label.y)) for label in labels]
    taken = [
        Bbox.from_extents(x - _MARK_RADIUS, y - _MARK_RADIUS, x + _MARK_RADIUS, y + _MARK_RADIUS) for x, y in marks
    ]
    taken += [box for line in lines for box in _along(axes, line)]
    frame = axes.get_window_extent(renderer).padded(-4)
    for own, label in enumerate(labels):
        tried = []
        for x, y, horizontal, vertical in _PLACES:
            text = axes.annotate(
                label.text,
                (label.x, label.y),
                xytext=(x, y),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=8,
                color=label.colour,
            )
            tried.append((text, text.get_window_extent(renderer)))
        costs = [_hidden(box, taken, frame) + _MISREAD * _nearer(box, marks, own) for _, box in tried]
        best = min(range(len(tried)), key=lambda index: (costs[index], index))
        for index, (text, _) in enumerate(tried):
            if index != best:
                text.remove()
        taken.append(tried[best][1])


def _along(axes: "Axes", line: Sequence[tuple[float, float]]) -> list["Bbox"]:
    """Small boxes that cover a polyline, in pixels."""
    import numpy as np
    from matplotlib.transforms import Bbox

    corners = axes.transData.transform(line) if len(line) > 1 else np.empty((0, 2))
    boxes = []
    for start, end in pairwise(corners):
        for x, y in np.linspace(start, end, max(2, int(np.hypot(*(end - start)) / 6))):
            boxes.append(Bbox.from_extents(x - 3, y - 3, x + 3, y + 3))
    return boxes


def _hidden(box: "Bbox", taken: list["Bbox"], frame: "Bbox") -> float:
    """The area of `box` that lies over taken boxes or outside the frame, in square pixels."""
    inside = _overlap(box, frame)
    return sum(_overlap(box, other) for other in taken) + box.width * box.height - inside


def _nearer(box: "Bbox", marks: Sequence[Sequence[float]], own: int) -> float:
    """By how many pixels another mark is nearer to `box` than its own, or as near up to a few."""
    apart = [hypot(max(box.x0 - x, 0.0, x - box.x1), max(box.y0 - y, 0.0, y - box.y1)) for x, y in marks]
    others = [distance for i, distance in enumerate(apart) if i != own]
    return max(0.0, apart[own] + 4.0 - min(others)) if others else 0.0


def _overlap(a: "Bbox", b: "Bbox") -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0.0, width) * max(0.0, height)
