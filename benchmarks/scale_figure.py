"""The figure of `benchmarks.scale`: time above, memory below, one varied quantity in each column."""

import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.record import RESULTS, Record
from rdmd.errors import UserError
from rdmd.files import replacing

_COLUMNS = {
    "batch": "batch",
    "resolution": "side in pixels",
    "channels": "parameters in millions",
    "lambdas": "lambdas in turn",
    "samples": "training images",
}


def draw_newest(file: Path) -> None:
    """Write a PNG of the newest record. Raises UserError if there is none."""
    records = sorted(
        (Record.model_validate_json(one.read_text(encoding="utf-8")) for one in RESULTS.glob("scale.*.json")),
        key=lambda one: one.date,
    )
    if not records:
        raise UserError(f"{RESULTS} holds no record of scale; make one with `python -m benchmarks.scale`.")
    with replacing(file) as temporary:
        draw(records[-1], temporary)


def draw(record: Record, file: Path) -> None:
    """Write a PNG of one record."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(
        2, len(_COLUMNS), figsize=(13, 5.4), layout="constrained", sharex="col", sharey="row"
    )
    for column, (axis, label) in enumerate(_COLUMNS.items()):
        for row, unit in enumerate(("seconds", "mib")):
            ax = rows[row, column]
            _line(ax, record, axis, unit)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.grid(True, which="major", color="0.88", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            if row == 1:
                ax.set_xlabel(label)
            if row == 1:
                ax.yaxis.set_major_formatter("{x:g}")
                ax.yaxis.set_minor_formatter("{x:g}")
            if axis in ("batch", "resolution", "lambdas"):
                values = _values(record, axis)
                ax.set_xticks(values, [f"{value:g}" for value in values])
                ax.xaxis.set_minor_locator(NullLocator())
    rows[0, 0].set_ylabel("seconds a step")
    rows[1, 0].set_ylabel("peak memory in MiB")
    figure.suptitle(
        f"A step of distillation, one thing varied at a time ({record.machine}; {record.device}). Bars: quartiles",
        fontsize=10,
    )
    figure.savefig(file, dpi=150, format="png")
    pyplot.close(figure)


def _values(record: Record, axis: str) -> list[int]:
    found = (re.fullmatch(rf"{axis}_(\d+)_seconds", name) for name in record.figures)
    return sorted(int(match[1]) for match in found if match)


def _line(ax: Axes, record: Record, axis: str, unit: str) -> None:
    values = _values(record, axis)
    x = np.array(values, float)
    if axis == "channels":
        x = np.array([record.figures[f"channels_{value}_parameters"] for value in values]) / 1e6
    y = np.array([record.figures[f"{axis}_{value}_{unit}"] for value in values])
    spread = None
    if unit == "seconds":
        spread = [record.figures[f"{axis}_{value}_seconds_iqr"] / 2 for value in values]
    ax.errorbar(x, y, yerr=spread, fmt="o-", color="#1b4f8f", markersize=4, linewidth=1.4, capsize=2)
