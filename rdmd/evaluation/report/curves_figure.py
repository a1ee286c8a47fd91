"""Training curves: one panel a metric, one line a run."""

import math
from collections.abc import Sequence

import numpy as np

from rdmd.evaluation.report.contents import Curve
from rdmd.evaluation.report.style import new_figure, png_of

_COLUMNS = 3
_LINES = ["-", "--", "-.", ":"]
_COLOURS = ["#0b3c6f", "#d9730d", "#2f8f6b", "#a3a51f", "#b0468f", "#6f6f6f"]
# From this ratio of largest to smallest on, a panel's axis is logarithmic.
_LOG_FROM = 30


def curves_png(curves: Sequence[Curve]) -> bytes:
    """All curves as PNG; a thick line is the running mean, the thin one behind it what was logged."""
    metrics = list(dict.fromkeys(metric for curve in curves for metric in curve.values))
    columns = min(_COLUMNS, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    figure = new_figure(3.4 * columns + 0.2, 2.5 * lines + 0.5)
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for place in places[len(metrics) :]:
        place.set_axis_off()
    for place, metric in zip(places, metrics, strict=False):
        values: list[float] = []
        for index, curve in enumerate(curves):
            if metric not in curve.values:
                continue
            line, colour = _LINES[index % len(_LINES)], _COLOURS[index % len(_COLOURS)]
            logged = np.asarray(curve.values[metric], dtype=float)
            values += logged[np.isfinite(logged)].tolist()
            place.plot(curve.steps, logged, color=colour, linewidth=0.5, alpha=0.35)
            place.plot(curve.steps, _smooth(logged), line, color=colour, linewidth=1.4, label=curve.name)
        if values and min(values) > 0 and max(values) / min(values) > _LOG_FROM:
            place.set_yscale("log")
        place.set_title(metric.replace("_", " "), fontsize=9)
        place.set_xlabel("optimiser step", fontsize=8)
        place.tick_params(labelsize=7)
        place.grid(True, color="#ececec", linewidth=0.6)
        for side in ("top", "right"):
            place.spines[side].set_visible(False)
        place.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return png_of(figure)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a centred window of a twentieth of the run, shorter at the ends."""
    half = len(values) // 40
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])
