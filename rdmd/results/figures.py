"""The figures of docs/results.md that are drawn from numbers: fronts with intervals over seeds."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdmd.evaluation.labels import dial, method_name
from rdmd.evaluation.pareto import nondominated
from rdmd.evaluation.report.label_placement import Label, place_labels
from rdmd.evaluation.report.style import FAINT, INK, Style, new_figure, png_of, styles
from rdmd.evaluation.row import GENERATOR, IDENTITY
from rdmd.results.candidates import DATA, EXACT, TEACHER
from rdmd.results.refinement import is_own_run
from rdmd.results.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From this ratio of largest to smallest value on, L2-UVP's axis is logarithmic.
_LOG_FROM = 8
# Pixels between two marks that both get a label.
_APART = 12
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
    width = 7.6 if len(planes) == 1 else 5.6 * len(planes)
    figure = new_figure(width, 5.9)
    panels = figure.subplots(1, len(planes), squeeze=False)[0]
    for axes, plane in zip(panels, planes, strict=True):
        _panel(axes, series, references, plane)
    handles = {}
    for axes in panels:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = 3 if len(planes) == 1 else 5
    figure.legend(handles.values(), handles.keys(), fontsize=8, frameon=False, loc="upper left", ncols=columns,
                  bbox_to_anchor=(0.02, 1.0))
    head = 1 - 0.036 * (1 + (len(handles) - 1) // columns) - 0.03
    left = 0.68 / width
    figure.subplots_adjust(left=left, right=0.985, bottom=0.19, top=head, wspace=0.2)
    for axes, plane in zip(panels, planes, strict=True):
        place_labels(axes, _labels(axes, series, plane), _lines(series, plane))
    wrapped = textwrap.fill(caption, width=int(16.5 * width))
    figure.text(0.02, 0.012, wrapped, fontsize=7.5, color="#444444", va="bottom", linespacing=1.35)
    return png_of(figure)


def _panel(axes: "Axes", series: list[Series], references: Sequence[Summary], plane: Plane) -> None:
    for one in series:
        points = _placed(one, plane)
        on_front = nondominated([_at(point, plane) for point in points])
        joined = sorted(_at(point, plane) for point, kept in zip(points, on_front, strict=True) if kept)
        axes.plot([x for x, _ in joined], [y for _, y in joined], linestyle=one.style.line, color=one.style.colour,
                  linewidth=1.3, zorder=2)
        for point, kept in zip(points, on_front, strict=True):
            x, y = _at(point, plane)
            axes.errorbar([x], [y], xerr=point.std[plane.x], yerr=point.std[plane.y], fmt=one.style.marker,
                          color=one.style.colour, markerfacecolor=one.style.colour if kept else "white",
                          markersize=5.5, elinewidth=0.9, capsize=2.0, zorder=3)
        axes.plot([], [], linestyle=one.style.line, marker=one.style.marker, color=one.style.colour, label=one.label)
    _references(axes, references, plane)
    axes.set_xlabel(_NAMES.get(plane.x, plane.x), fontsize=8.5)
    axes.set_ylabel(_NAMES.get(plane.y, plane.y), fontsize=8.5)
    _scale(axes, [_at(point, plane) for one in series for point in _placed(one, plane)])
    axes.tick_params(labelsize=8)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _references(axes: "Axes", references: Sequence[Summary], plane: Plane) -> None:
    """The target's own samples and the teacher's as levels of realism, exact transport as a cost, the source as it is
    as a point."""
    levels = {"target": (1, 1.5), DATA: (1, 1.5), TEACHER: (4, 2)}
    for one in references:
        if one.method in levels and plane.y in one.mean:
            axes.axhline(one.mean[plane.y], color=FAINT, linestyle=(0, levels[one.method]), linewidth=1.3, zorder=1)
            axes.plot([], [], color=FAINT, linestyle=(0, levels[one.method]), label=method_name(one.method))
        if one.method == IDENTITY and plane.x in one.mean and plane.x != "l2_uvp":
            axes.plot([one.mean[plane.x]], [one.mean[plane.y]], "X", color=INK, markersize=6.5, linestyle="none",
                      label=method_name(IDENTITY))
        if one.method == EXACT and plane.x in one.mean:
            # Between Gaussians this is the closed form, and the row an estimate of it from samples.
            x = one.mean["ot_cost" if plane.x == "cost_sum" else plane.x]
            axes.axvline(x, color=INK, linestyle=(0, (6, 3)), linewidth=0.9, zorder=1)
            axes.plot([], [], color=INK, linestyle=(0, (6, 3)), linewidth=0.9, label=method_name(EXACT))


def _scale(axes: "Axes", points: list[tuple[float, float]]) -> None:
    """Realism on a logarithmic axis; costs from 0, L2-UVP on a logarithmic axis where it spans one."""
    if min(y for _, y in points) > 0:
        _logarithmic(axes, "y")
    xs = [x for x, _ in points]
    if min(xs) > 0 and axes.get_xlabel() == _NAMES["l2_uvp"] and max(xs) / min(xs) > _LOG_FROM:
        _logarithmic(axes, "x")
    else:
        axes.set_xlim(-0.03 * max(xs), 1.12 * max(xs))


def _logarithmic(axes: "Axes", name: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{name}scale")("log")
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _placed(series: Series, plane: Plane) -> list[Summary]:
    return [one for one in series.points if plane.x in one.mean and plane.y in one.mean]


def _at(point: Summary, plane: Plane) -> tuple[float, float]:
    return point.mean[plane.x], point.mean[plane.y]


def _labels(axes: "Axes", series: list[Series], plane: Plane) -> list[Label]:
    """The generators' lambdas, with what else differs within a series. Other dials, and points that lie on a labelled
    one of their series, are in the table: a label each would bury the figure."""
    labels = []
    for one in series:
        rows, kept = [other.as_row() for other in one.points], []
        for point in (point for point in _placed(one, plane) if point.method == GENERATOR):
            place = axes.transData.transform(_at(point, plane))
            if all(abs(place - other).max() > _APART for other in kept):
                kept.append(place)
                labels.append(Label(*_at(point, plane), dial(point.as_row(), rows), one.style.colour))
    return labels


def _lines(series: list[Series], plane: Plane) -> list[list[tuple[float, float]]]:
    return [sorted(_at(point, plane) for point in _placed(one, plane)) for one in series]
