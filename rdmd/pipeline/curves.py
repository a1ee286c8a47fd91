"""The training curves of a stage as one CSV file, which DVC plots and compares."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rdmd.files import write_text
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.run_folder import RunFolder

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
        points = RunFolder(layout.runs / read_card(file.parent).run).curves()
        for metric in dict.fromkeys(name for point in points for name in point.values):
            # Evaluations are on few of the points.
            for step, value in thinned([(p.step, p.values[metric]) for p in points if metric in p.values]):
                writer.writerow([file.parent.name, metric, step, f"{value:.5g}"])
    write_text(layout.curves / f"{models.name}.csv", text.getvalue())


def thinned(curve: Sequence[tuple[int, float]], count: int = POINTS) -> list[tuple[int, float]]:
    """At most `count` points (step, value): the means over equal parts of a curve, each at its part's last step."""
    parts = [part.tolist() for part in np.array_split(np.arange(len(curve)), count) if len(part)]
    return [(curve[part[-1]][0], float(np.mean([curve[i][1] for i in part]))) for part in parts]
