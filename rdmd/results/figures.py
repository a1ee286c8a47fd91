"""The figures of docs/results.md that are drawn from numbers: fronts with intervals over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from rdmd.evaluation.labels import dial, method_name
from rdmd.evaluation.pareto import nondominated
from rdmd.evaluation.row import GENERATOR, IDENTITY
from rdmd.report import figures as drawn
from rdmd.report.style import INK, Style, png_bytes, styles
from rdmd.results.candidates import DATA, EXACT, TEACHER
from rdmd.results.refinement import is_own_run
from rdmd.results.summary import Summary

# Two points that differ by less than this share of the larger in both metrics get one label.
_ALIKE = 0.02
# Variants of a comparison have no look of their own: their order decides.
_VARIANTS = [
    Style("#0b3c6f", "o", "-"),
    Style("#d9730d", "s", "--"),
    Style("#2f8f6b", "^", "-."),
    Style("#b0468f", "v", ":"),
    Style("#8c8a1a", "D", (0, (6, 1.5, 1.5, 1.5))),
    Style("#4fa3d9", "P", (0, (9, 2))),
    Style("#555555", "<", (0, (3, 1, 1, 1, 1, 1))),
]
_NAMES = {
    "fid": "FID of features to the target  (realistic ↓)",
    "sw2": "SW2 to the target  (realistic ↓)",
    "cost": "cost: squared difference to the source, mean over dimensions  (faithful ←)",
    "cost_sum": "cost: squared distance to the source, summed over dimensions  (faithful ←)",
    "l2_uvp": "L2-UVP: squared distance to exact transport, % of the target's variance  (←)",
}


@dataclass(frozen=True)
class Plane:
    """Two metrics to draw against each other."""

    x: str
    y: str


@dataclass(frozen=True)
class Series:
    """One line of a figure. Points off its own front are hollow and left out of the line."""

    label: str
    points: list[Summary]
    style: Style


def methods_as_series(summaries: Sequence[Summary]) -> list[Series]:
    """One series a method that has a cost: the generators first, lambda's own runs apart from what was refined."""
    placed = [one for one in summaries if one.method not in (IDENTITY, EXACT) and "cost" in one.mean]
    looks = styles([one.method for one in placed])
    series = []
    for method, style in looks.items():
        points = [one for one in placed if one.method == method]
        own = [one for one in points if is_own_run(one.settings)]
        series += _series(method_name(method), [one for one in points if one not in own], style)
        series += _series(f"{method_name(method)}, λ's own run", own, Style(style.colour, "p", (0, (4, 1.5))))
    return series


def _series(name: str, points: list[Summary], style: Style) -> list[Series]:
    if not points:
        return []
    counts = sorted({one.nfe for one in points})
    nfe = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [Series(f"{name} (NFE {nfe})", points, style)]


def variants_as_series(variants: dict[str, list[Summary]]) -> list[Series]:
    """One series a variant of a comparison."""
    return [Series(name, points, _VARIANTS[number % len(_VARIANTS)])
            for number, (name, points) in enumerate(variants.items())]


def fronts_png(series: list[Series], references: Sequence[Summary], planes: Sequence[Plane], caption: str) -> bytes:
    """One panel a plane: every series with bars of one standard deviation over seeds, references as lines."""
    return png_bytes(drawn.front_figure([_panel(series, references, plane) for plane in planes], caption))


def _panel(series: list[Series], references: Sequence[Summary], plane: Plane) -> drawn.Plane:
    shown = [drawn.Series(one.label, _points(one, plane), one.style) for one in series]
    sources = [one for one in references if one.method == IDENTITY and plane.x in one.mean and plane.x != "l2_uvp"]
    shown += [
        drawn.Series(method_name(IDENTITY), [drawn.Point(*_at(one, plane))], Style(INK, "X", "")) for one in sources
    ]
    return drawn.Plane(
        _NAMES.get(plane.x, plane.x), _NAMES.get(plane.y, plane.y), shown, _references(references, plane),
        log_x=plane.x == "l2_uvp",
    )  # fmt: skip


def _points(series: Series, plane: Plane) -> list[drawn.Point]:
    """The points of a series, hollow off its front, with lambda and what else differs as labels of generators. Other
    hyperparameters, and points on a labelled one of their series, are in the table: a label each would bury the figure.
    """
    placed = [one for one in series.points if plane.x in one.mean and plane.y in one.mean]
    rows = [one.as_row() for one in series.points]
    points: list[drawn.Point] = []
    for one, kept in zip(placed, nondominated([_at(one, plane) for one in placed]), strict=True):
        x, y = _at(one, plane)
        alike = any(
            point.label and abs(point.x - x) <= _ALIKE * x and abs(point.y - y) <= _ALIKE * y for point in points
        )
        label = "" if alike or one.method != GENERATOR else dial(one.as_row(), rows)
        intervals = (_interval(one.mean[name], one.std[name]) for name in (plane.x, plane.y))
        points.append(drawn.Point(x, y, *intervals, label, kept))
    return points


def _interval(mean: float, std: float | None) -> tuple[float, float] | None:
    """One standard deviation to both sides; None with one seed."""
    return None if std is None else (mean - std, mean + std)


def _references(references: Sequence[Summary], plane: Plane) -> list[drawn.Reference]:
    """The target's own samples and the teacher's as levels of realism, exact transport as a cost."""
    levels = {"target": ":", DATA: ":", TEACHER: "-."}
    found = []
    for one in references:
        if one.method in levels and plane.y in one.mean:
            found.append(drawn.Reference(method_name(one.method), y=one.mean[plane.y], line=levels[one.method]))
        if one.method == EXACT and plane.x in one.mean:
            # Between Gaussians this is the closed form, and the row an estimate of it from samples.
            x = one.mean["ot_cost" if plane.x == "cost_sum" else plane.x]
            found.append(drawn.Reference(method_name(EXACT), x=x, line="--"))
    return found


def _at(point: Summary, plane: Plane) -> tuple[float, float]:
    return point.mean[plane.x], point.mean[plane.y]
