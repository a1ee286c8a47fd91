"""The figures of docs/results: fronts with deviations over seeds, and samples beside their translations."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from rdmd.evaluation.row import GENERATOR, IDENTITY
from rdmd.evaluation.selection import cheapest_near_best, nondominated
from rdmd.evaluation.table import method_name
from rdmd.evaluation.task import EvaluationTask, ImageTask, PointTask
from rdmd.files import replacing
from rdmd.report.figures import Plane, Point, Reference, Series
from rdmd.report.samples import image_grid
from rdmd.report.style import CYCLE, Style, new_figure, png_bytes, styles
from studies.measure import Measured
from studies.statistics import EXACT, REFERENCES, TEACHER, setting_labels, table

# Generators of a longer sweep, and sources, that figures of samples show.
_SHOWN, _SOURCES = 5, 8
_AXES = {
    "fid": "FID  (realistic ↓)",
    "sw2": "SW2 to the target  (realistic ↓)",
    "cost": "cost: squared difference to the source, mean  (faithful ←)",
    "cost_sum": "cost: squared distance to the source  (faithful ←)",
    "truth_feature_distance": "distance to the true counterpart, in features  (←)",
    "l2_uvp": "L2-UVP: distance to exact transport, %  (←)",
}


def front_plane(summary: pd.DataFrame, x: str, y: str) -> Plane:
    """Every method on two metrics; hollow points are off the method's own front."""
    placed = summary[~summary["method"].isin([IDENTITY, EXACT]) & summary["cost"].notna()]
    groups = {str(method): points for method, points in placed.groupby("method", sort=False)}
    looks, series, references = styles(list(groups)), [], []
    for name, points in groups.items():
        counts = " to ".join(str(nfe) for nfe in sorted({points["nfe"].min(), points["nfe"].max()}))
        label = f"{method_name(name)} (NFE {counts})"
        on_front = nondominated(list(zip(points[x], points[y], strict=True)))
        series.append(Series(label, _points(points, x, y, on_front), looks[name]))
    for _, row in summary[summary["method"].isin(REFERENCES)].iterrows():
        label = method_name(row["method"])
        if row["method"] == IDENTITY:
            if x != "l2_uvp":
                series.append(Series(label, [Point(row[x], row[y])], styles([IDENTITY])[IDENTITY]))
        elif row["method"] != EXACT:
            references.append(Reference(label, y=row[y], line="-." if row["method"] == TEACHER else ":"))
        elif not math.isnan(row[x]):
            # Between Gaussians the exact cost is known in closed form, and the row is an estimate of it.
            references.append(Reference(label, x=row["ot_cost"] if x == "cost_sum" else row[x], line="--"))
    return Plane(_AXES[x], _AXES[y], series, references, log_x=x == "l2_uvp")


def variants_plane(title: str, variants: Mapping[str, pd.DataFrame], x: str, y: str) -> Plane:
    """The variants of a comparison; a line joins all points of a variant."""
    looks: list[Style] = [CYCLE[index % len(CYCLE)] for index in range(len(variants))]
    series = [
        Series(name, _points(points, x, y, [True] * len(points)), look)
        for (name, points), look in zip(variants.items(), looks, strict=True)
    ]
    return Plane(_AXES[x], _AXES[y], series, log_x=x == "l2_uvp", title=title)


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(file) as temporary:
        temporary.write_bytes(png_bytes(figure))


def chosen_samples(measured: Sequence[Measured]) -> list[tuple[str, Tensor]]:
    """Titles and first translations of at most `_SHOWN` generators by rising cost, and of every baseline the
    cheapest near its best."""
    frame = table(row for part in measured for row in part.rows)
    samples = [each for part in measured for each in part.samples]
    labels = setting_labels(frame)
    columns = []
    for method, rows in frame[~frame["method"].isin(REFERENCES)].groupby("method", sort=False):
        kept = _thinned(rows) if method == GENERATOR else [rows.index[cheapest_near_best(_places(rows))]]
        columns += [
            (f"{method_name(str(method))}\n{labels[index]}".replace(", ", "\n"), samples[index]) for index in kept
        ]
    return columns


def draw_samples(task: EvaluationTask, columns: Sequence[tuple[str, Tensor]], file: Path) -> None:
    """The first sources beside their translations. For images a row for each source, with its true counterpart where it
    is known; for points a panel for each set, where colour is the angle of the point's source."""
    columns = [("source", task.source), *columns]
    if isinstance(task, ImageTask) and task.truth is not None:
        columns.append(("true\ncounterpart", task.truth.images))
    if not isinstance(task, PointTask):
        save(image_grid([(title, images[:_SOURCES]) for title, images in columns]), file)
        return
    if task.plan is not None:
        columns[1:1] = [("target", task.reference), ("exact transport", task.plan.barycentres.float())]
    count = min(len(points) for _, points in columns)
    sets = [(title, points[:count].numpy()) for title, points in columns]
    figure = new_figure(13, 2.9 * math.ceil(len(sets) / 5) + 0.5)
    panels = figure.subplots(math.ceil(len(sets) / 5), 5, squeeze=False).ravel()
    angle = np.arctan2(*sets[0][1].T[::-1])
    low, high = np.percentile(np.concatenate([points for _, points in sets[:2]]), [0.1, 99.9], axis=0)
    for axes in panels:
        axes.set_axis_off()
    for axes, (title, points) in zip(panels, sets, strict=False):
        colour = {"color": "#999999"} if title == "target" else {"c": angle, "cmap": "hsv"}
        axes.scatter(*points.T, s=2.5, linewidths=0, **colour)
        axes.set_title(title, fontsize=8)
        axes.set(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    save(figure, file)


def _points(rows: pd.DataFrame, x: str, y: str, filled: Sequence[bool]) -> list[Point]:
    """The rows as points with bars of one deviation over the seeds; generators carry their lambda."""
    found = []
    for (_, row), fill in zip(rows.iterrows(), filled, strict=True):
        x_interval, y_interval = (
            None if math.isnan(row[f"{axis}_std"]) else (row[axis] - row[f"{axis}_std"], row[axis] + row[f"{axis}_std"])
            for axis in (x, y)
        )
        label = f"λ = {row['lambda']:g}" if row["method"] == GENERATOR else ""
        found.append(Point(row[x], row[y], x_interval, y_interval, label, fill))
    return found


def _thinned(rows: pd.DataFrame) -> "pd.Index[int]":
    rows = rows.sort_values("cost")
    front = rows[nondominated(_places(rows))]
    rows = front if len(front) >= _SHOWN else rows
    return rows.index[np.unique(np.linspace(0, len(rows) - 1, _SHOWN).round().astype(int))]


def _places(rows: pd.DataFrame) -> list[tuple[float, float]]:
    return list(zip(rows["cost"], rows["realism"], strict=True))
