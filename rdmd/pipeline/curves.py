"""The training curves of a stage as one CSV file, which DVC plots and compares."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rdmd.files import write_text
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.run_folder import Point, RunFolder

# The files are kept in git.
POINTS = 200


def write_curves(layout: Layout, models: Path) -> None:
    """Write reports/curves/<stage>.csv from the runs of the models in the folder `models`, which names the stage.

    A line is (model, metric, step, value). A model whose run is no longer in `runs/` has no lines.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "metric", "step", "value"])
    for file in sorted(models.rglob("model.json")):
        for point in thinned(RunFolder(layout.runs / read_card(file.parent).run).curves()):
            for metric, value in point.values.items():
                writer.writerow([file.parent.name, metric, point.step, f"{value:.5g}"])
    write_text(layout.curves / f"{models.name}.csv", text.getvalue())


def thinned(points: Sequence[Point], count: int = POINTS) -> list[Point]:
    """At most `count` points: the means over equal parts of a curve, each at the last step of its part."""
    parts = [part.tolist() for part in np.array_split(np.arange(len(points)), count) if len(part)]
    return [
        Point(points[part[-1]].step, {key: float(np.mean([points[i].values[key] for i in part])) for key in values})
        for part in parts
        for values in [points[part[0]].values]
    ]
