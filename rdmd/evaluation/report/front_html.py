"""The front: the figure, what stands behind each of its marks, and one number for each method's curve."""

from collections.abc import Iterator
from html import escape

from rdmd.evaluation.labels import interval, number, plus_minus, realism_name, row_labels
from rdmd.evaluation.pareto import hypervolume, plane
from rdmd.evaluation.report.html import image
from rdmd.evaluation.report.plot import Mark, Plot
from rdmd.evaluation.report.realism_figure import has_costs
from rdmd.evaluation.row import IDENTITY, TARGET, Metrics, Row
from rdmd.evaluation.table import Z95

_HINT = '<p class="hint">Point at a mark, or tap it, for its settings.</p>'


def front_html(metrics: Metrics, plot: Plot) -> str:
    """The plane of cost and realism, or the axis of realism where nothing has a cost, with a note for every mark."""
    if not has_costs(metrics):
        text = "<p>The source is noise, which nothing can be faithful to: realism is all there is. Left is better.</p>"
        return _hovered(metrics, plot, "Every method by realism") + text
    shares = "".join(f"<li>{escape(name)}: {100 * share:.0f}%</li>" for name, share in _dominated(metrics))
    text = (
        "<p>Down and to the left is better. One number for a method's whole curve is the area that it "
        "dominates, as a share of the box between the origin and the worst cost and realism in the table "
        "(hypervolume):</p>"
        f"<ul>{shares}</ul>"
    )
    return _hovered(metrics, plot, "Every method on the plane of cost and realism") + (text if shares else "")


def _hovered(metrics: Metrics, plot: Plot, alt: str) -> str:
    """The picture below buttons that show their note while pointed at or focused: no script, so it works anywhere."""
    labels = {id(row): label for row, label in zip(metrics.rows, row_labels(metrics.rows), strict=True)}
    marks = "\n".join(_mark(mark, labels[id(mark.row)]) for mark in plot.marks)
    drawn = f'<div class="plot">{image(plot.png, alt)}\n{marks}\n</div>'
    return f'{_HINT}<figure><div class="scroll">{drawn}</div></figure>'


def _mark(mark: Mark, label: str) -> str:
    # The note opens towards the middle of the picture, so that it stays inside.
    across = f"left:{100 * mark.left + 1.5:.2f}%" if mark.left < 0.5 else f"right:{100 * (1 - mark.left) + 1.5:.2f}%"
    down = f"top:{100 * mark.top + 1.5:.2f}%" if mark.top < 0.5 else f"bottom:{100 * (1 - mark.top) + 1.5:.2f}%"
    items = "".join(f"<li>{escape(item)}</li>" for item in _facts(mark.row))
    return (
        f'<button type="button" class="mark" style="left:{100 * mark.left:.2f}%;top:{100 * mark.top:.2f}%" '
        f'aria-label="{escape(label)}"></button>'
        f'<div class="note" role="note" style="{across};{down}"><p>{escape(label)}</p><ul>{items}</ul></div>'
    )


def _facts(row: Row) -> Iterator[str]:
    yield f"{realism_name(row)} {interval(row.realism, row.realism_ci)}"
    if row.cost is not None:
        yield f"cost {plus_minus(row.cost, None if row.cost_se is None else Z95 * row.cost_se)}"
    if row.nfe:
        yield f"NFE {row.nfe}"
    if row.seconds_per_image is not None:
        yield f"{number(1000 * row.seconds_per_image)} ms a sample"
    if row.train_seconds is not None:
        yield f"{number(row.train_seconds)} s of training"
    if row.lam is not None:
        yield f"lambda = {row.lam:g}"
    for key, value in row.settings.items():
        yield f"{key} = {f'{value:g}' if isinstance(value, float) else value}"
    if row.on_front:
        yield "on the front"


def _dominated(metrics: Metrics) -> Iterator[tuple[str, float]]:
    """The hypervolume of each method's rows, as a share of the box of all rows."""
    placed = [row for row in metrics.rows if row.cost is not None and row.realism is not None]
    if not placed:
        return
    worst = (max(plane(row)[0] for row in placed), max(plane(row)[1] for row in placed))
    if worst[0] <= 0 or worst[1] <= 0:
        return
    for method in dict.fromkeys(row.method for row in placed if row.method not in (IDENTITY, TARGET)):
        points = [plane(row) for row in placed if row.method == method]
        name = row_labels([row for row in placed if row.method == method][:1])[0].split(",")[0]
        yield name, hypervolume(points, worst) / (worst[0] * worst[1])
