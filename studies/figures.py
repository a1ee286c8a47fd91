"""The figures of docs/results: fronts with deviations over seeds, and samples beside their translations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from adjustText import adjust_text  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from rdmd.evaluation.pareto import knee, nondominated
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET
from rdmd.evaluation.table import method_name
from rdmd.evaluation.task import EvaluationTask, PointTask
from rdmd.files import replacing
from studies.measure import Measured
from studies.statistics import DATA, EXACT, REFERENCES, TEACHER, setting_labels, table

# Generators of a longer sweep, and sources, that figures of samples show.
_SHOWN, _SOURCES = 5, 8

# Colour-blind safe (Okabe and Ito 2008); the marker tells series apart in print.
_LOOKS = [
    ("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "v"), ("#8c6d00", "D"), ("#56b4e9", "P"),
    ("#555555", "<"), ("#e69f00", ">"),
]  # fmt: skip
_AXES = {
    "fid": "FID (realistic ↓)",
    "sw2": "SW2 to the target (realistic ↓)",
    "cost": "cost: squared difference to the source (faithful ←)",
    "cost_sum": "cost: squared distance to the source (faithful ←)",
    "l2_uvp": "L2-UVP: distance to exact transport, % (←)",
}
_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
          "axes.axisbelow": True, "font.size": 9, "legend.frameon": False}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One plane of two metrics: a summary (`statistics.summarise`) for each series, and the references' summary."""

    title: str
    x: str
    y: str
    series: dict[str, pd.DataFrame]
    references: pd.DataFrame


def draw_fronts(panels: Sequence[Panel], file: Path, columns: int = 2, shared_legend: bool = True) -> None:
    """Every series as its points, with bars of one deviation over the seeds; a line joins the series' own front, and
    hollow points are off it. Generators carry their lambda. Without a shared legend each panel has its own, and lines
    join all points."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = 6.2 if shared_legend else 4.6
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9 if len(panels) == 1 else width * columns, 0.9 * width * rows), layout="constrained")
        every = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(every, panels, strict=False):
            _draw_panel(axes, panel, joined=not shared_legend)
            if not shared_legend:
                axes.legend(fontsize=8)
        for axes in every[len(panels) :]:
            axes.set_visible(False)
        if shared_legend:
            handles, names = every[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside upper left", ncols=4, fontsize=8.5)
        figure.canvas.draw()
        for axes, panel in zip(every, panels, strict=False):
            if shared_legend:
                _label(axes, panel)
        _save(figure, file)


def chosen_samples(measured: Sequence[Measured]) -> list[tuple[str, Tensor]]:
    """Titles and first translations of at most `_SHOWN` generators by rising cost, and of every baseline at the knee
    of its front."""
    frame = table(row for part in measured for row in part.rows)
    samples = [one for part in measured for one in part.samples]
    labels = setting_labels(frame)
    columns = []
    for method, rows in frame[~frame["method"].isin(REFERENCES)].groupby("method", sort=False):
        kept = _thinned(rows) if method == GENERATOR else [rows.index[knee(_places(rows))]]
        columns += [
            (f"{method_name(str(method))}\n{labels[index]}".replace(", ", "\n"), samples[index]) for index in kept
        ]
    return columns


def draw_samples(task: EvaluationTask, columns: Sequence[tuple[str, Tensor]], file: Path) -> None:
    """The first sources beside their translations. For images a row for each source; for points a panel for each set,
    where colour is the angle of the point's source."""
    columns = [("source", task.source), *columns]
    if isinstance(task, PointTask) and task.plan is not None:
        columns[1:1] = [("target", task.reference), ("exact transport", task.plan.barycentres.float())]
    count = min(len(points) for _, points in columns)
    sets = [(title, points[:count].numpy()) for title, points in columns]
    points = isinstance(task, PointTask)
    across = 5 if points else len(sets)
    down = math.ceil(len(sets) / across) if points else _SOURCES
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=((2.6 if points else 1.0) * across, (2.9 if points else 0.95) * down + 0.5),
                        layout="constrained")  # fmt: skip
        every = figure.subplots(down, across, squeeze=False)
        for axes in every.ravel():
            axes.set_axis_off()
        if points:
            angle = np.arctan2(*sets[0][1].T[::-1])
            low, high = np.percentile(np.concatenate([one for _, one in sets[:2]]), [0.1, 99.9], axis=0)
            for axes, (title, one) in zip(every.ravel(), sets, strict=False):
                colour = {"color": "#999999"} if title == "target" else {"c": angle, "cmap": "hsv"}
                axes.scatter(*one.T, s=2.5, linewidths=0, **colour)
                axes.set_title(title, fontsize=8)
                axes.set(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        else:
            for line, (title, images) in zip(every.T, sets, strict=True):
                line[0].set_title(title, fontsize=7)
                for axes, image in zip(line, images, strict=False):
                    axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
        _save(figure, file)


def _thinned(rows: pd.DataFrame) -> "pd.Index[int]":
    """Of generators that are refined the smallest lambda alone: refinement forgets lambda, so they look alike."""
    unrefined = rows["settings"].map(lambda settings: settings.get("refinements") == 0)
    if unrefined.any():
        rows = pd.concat([rows[unrefined], rows[~unrefined].nsmallest(1, "lambda")])
    rows = rows.sort_values("cost")
    front = rows[nondominated(_places(rows))]
    rows = front if len(front) >= _SHOWN else rows
    return rows.index[np.unique(np.linspace(0, len(rows) - 1, _SHOWN).round().astype(int))]


def _places(rows: pd.DataFrame) -> list[tuple[float, float]]:
    return list(zip(rows["cost"], rows["realism"], strict=True))


def _draw_panel(axes: Axes, panel: Panel, joined: bool) -> None:
    for (name, points), (colour, marker) in zip(panel.series.items(), _LOOKS * 3, strict=False):
        places = list(zip(points[panel.x], points[panel.y], strict=True))
        kept = [True] * len(places) if joined else nondominated(places)
        line = points if joined else points[kept].sort_values(panel.x)
        axes.plot(line[panel.x], line[panel.y], color=colour, linewidth=1.2, marker=marker, markersize=5.5, label=name)
        x_bars, y_bars = points[f"{panel.x}_std"], points[f"{panel.y}_std"]
        axes.errorbar(points[panel.x], points[panel.y], y_bars, x_bars, fmt="none", ecolor=colour, elinewidth=0.8)
        # Above the labels, which a white rim sets off from the lines.
        for some, fill in ((line, colour), (points[~np.array(kept)], "white")):
            axes.plot(
                some[panel.x], some[panel.y], marker, color=colour, markerfacecolor=fill, markersize=5.5, zorder=4
            )
    for _, one in panel.references.iterrows():
        name, x, y = method_name(one["method"]), one[panel.x], one[panel.y]
        if one["method"] in (TARGET, DATA, TEACHER):
            axes.axhline(y, color="#777777", linestyle="-." if one["method"] == TEACHER else ":", label=name)
        elif one["method"] == EXACT and not math.isnan(x):
            # Between Gaussians this is known in closed form, and the row an estimate of it.
            axes.axvline(one["ot_cost"] if panel.x == "cost_sum" else x, color="black", linestyle="--", label=name)
        elif one["method"] == IDENTITY and panel.x != "l2_uvp":
            axes.plot([x], [y], "X", color="black", label=name)
    axes.set(xlabel=_AXES[panel.x], ylabel=_AXES[panel.y], title=panel.title, yscale="log")
    drawn = pd.concat(panel.series.values())[panel.x]
    if panel.x == "l2_uvp" and drawn.max() > 8 * drawn.min():
        axes.set_xscale("log")
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, "log")):
        if scale == "log":
            axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, panel: Panel) -> None:
    """The lambdas of generators. Of points that lie on one another the first is named."""
    halo = [withStroke(linewidth=2.5, foreground="white")]
    texts: list[Any] = []
    places: list[Any] = []
    for (_, points), (colour, _) in zip(panel.series.items(), _LOOKS * 3, strict=False):
        for _, one in points[points["method"] == GENERATOR].iterrows():
            place = axes.transData.transform((one[panel.x], one[panel.y]))
            if all(np.abs(place - other).max() > 10 for other in places):
                places.append(place)
                texts.append(
                    axes.text(
                        one[panel.x],
                        one[panel.y],
                        f"λ={one['lambda']:g}",
                        fontsize=8,
                        color=colour,
                        path_effects=halo,
                        ha="right",
                        va="top",
                    )
                )
    every = pd.concat(panel.series.values())
    arrows = {"arrowstyle": "-", "color": "#999999", "lw": 0.6}
    adjust_text(texts, every[panel.x].tolist(), every[panel.y].tolist(), ax=axes, expand=(1.3, 1.8), arrowprops=arrows)


def _save(figure: Figure, file: Path) -> None:
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
