"""The training curves of a stage as one CSV file, which DVC plots and compares."""

import csv
import io
from pathlib import Path

import numpy as np

from rdmd.files import write_text
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.run_folder import RunFolder

# Points of a curve: a longer one is averaged over equal parts, since the files are kept in git.
POINTS = 200


def write_curves(layout: Layout, models: Path) -> None:
    """Write reports/curves/<stage>.csv from the runs of the models in the folder `models`, which names the stage.

    A line is (model, metric, step, value). A model whose run is no longer in `runs/` has no lines.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "metric", "step", "value"])
    for file in sorted(models.rglob("model.json")):
        points = RunFolder(layout.runs / read_card(file.parent).run).curves()
        for part in np.array_split(np.arange(len(points)), min(POINTS, len(points)) or 1):
            for metric in points[part[0]].values if len(part) else ():
                value = np.mean([points[i].values[metric] for i in part])
                writer.writerow([file.parent.name, metric, points[part[-1]].step, f"{value:.5g}"])
    write_text(layout.curves / f"{models.name}.csv", text.getvalue())
