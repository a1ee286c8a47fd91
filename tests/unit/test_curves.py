"""Training curves as DVC plots them."""

import csv
from pathlib import Path

import pytest

from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import thinned, write_curves
from rdmd.training.run_folder import Point, RunFolder, curve_line


def test_a_long_curve_is_averaged_over_equal_parts() -> None:
    points = [(10 * (i + 1), float(i)) for i in range(10)]
    assert thinned(points, 2) == [(50, 2.0), (100, 7.0)]
    assert thinned(points, 10) == thinned(points, 50) == points
    assert thinned([]) == []


def test_evaluations_are_curves_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are on few of the points, and not on the first one."""
    points = [Point(5, {"cost": 1.0}), Point(10, {"cost": 2.0, "eval_fid": 9.0}), Point(15, {"cost": 3.0})]
    folder = RunFolder(tmp_path / "runs" / "r")
    folder.path.mkdir(parents=True)
    folder.curves_file.write_text("".join(map(curve_line, points)), encoding="utf-8")
    model = tmp_path / "models" / "generators" / "lambda-0.1"
    model.mkdir(parents=True)
    (model / "model.json").touch()

    class Card:
        run = "r"

    monkeypatch.setattr("rdmd.pipeline.training.read_card", lambda folder: Card)
    write_curves(Layout(tmp_path), tmp_path / "models" / "generators")
    with (tmp_path / "reports" / "curves" / "generators.csv").open(encoding="utf-8") as file:
        rows = [(row["model"], row["metric"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file)]
    name = "lambda-0.1"
    assert rows == [
        (name, "cost", 5, 1.0),
        (name, "cost", 10, 2.0),
        (name, "cost", 15, 3.0),
        (name, "eval_fid", 10, 9.0),
    ]
