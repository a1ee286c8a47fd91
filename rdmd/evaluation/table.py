"""The table of results, for a terminal and for the report."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from rdmd.evaluation.labels import interval, number, plus_minus, row_labels
from rdmd.evaluation.row import GENERATOR, Metrics, Row
from rdmd.selection.front import How, registered

Z95 = 1.96


@dataclass(frozen=True)
class Column:
    """A heading, what it means, and a row's cell."""

    heading: str
    meaning: str
    cell: Callable[[Row], str]


def columns(metrics: Metrics) -> list[Column]:
    """The columns for this experiment: only those in which some row has a value."""
    n = metrics.n_source
    every = [
        Column(
            "FID",
            "Frechet distance of features to the target; 95% bootstrap interval",
            lambda row: interval(row.fid, row.fid_ci),
        ),
        Column(
            "KID",
            "kernel distance of features, unbiased; ± deviation between subsets",
            lambda row: plus_minus(row.kid, row.kid_std),
        ),
        Column(
            "precision",
            "share of translations within the target's manifold; ± 95%",
            lambda row: _share(row.precision, n),
        ),
        Column(
            "recall",
            "share of the target covered by the translations; ± 95%",
            lambda row: _share(row.recall, metrics.n_reference),
        ),
        Column(
            "in class",
            "share of translations that a classifier puts in the target class; ± 95%",
            lambda row: _share(row.class_share, n),
        ),
        Column(
            "SW2",
            "sliced 2-Wasserstein distance to the target; 95% bootstrap interval",
            lambda row: interval(row.sw2, row.sw2_ci),
        ),
        Column("W2", "exact 2-Wasserstein distance between samples", lambda row: number(row.w2)),
        Column(
            "cost",
            "squared difference to the source, mean over dimensions; ± 95%",
            lambda row: _within(row.cost, row.cost_se),
        ),
        Column(
            "cost, sum",
            "squared difference to the source, summed over dimensions",
            lambda row: number(row.cost_sum),
        ),
        Column(
            "W2² to target",
            "the least summed cost of a map onto the target (exact transport between samples)",
            lambda row: number(row.ot_cost),
        ),
        Column(
            "L2-UVP %",
            "squared distance to the exact map, in percent of the target's variance",
            lambda row: number(row.l2_uvp),
        ),
        Column(
            "L2 in [0,1]",
            "Euclidean distance to the source, pixels in [0, 1]; ± 95%",
            lambda row: _within(row.l2_norm01, row.l2_norm01_se),
        ),
        Column(
            "PSNR dB",
            "peak signal-to-noise ratio, an untouched image counted as 100; ± 95%",
            lambda row: _within(row.psnr, row.psnr_se),
        ),
        Column("SSIM", "structural similarity to the source; ± 95%", lambda row: _within(row.ssim, row.ssim_se)),
        Column(
            "colour",
            "colour error, 0 same hue to 1 complement; ± 95%",
            lambda row: _within(row.colour_error, row.colour_error_se),
        ),
        Column("NFE", "network evaluations a sample", lambda row: str(row.nfe)),
        Column(
            "ms/sample",
            "wall-clock time a sample, median over batches",
            lambda row: number(None if row.seconds_per_image is None else 1000 * row.seconds_per_image),
        ),
        Column("training s", "wall-clock seconds of training", lambda row: number(row.train_seconds)),
    ]
    return [column for column in every if any(column.cell(row) != "–" for row in metrics.rows)]


def stated(metrics: Metrics) -> str:
    """What every number depends on, in one line: sample sizes, features, seed; and why they rank nothing,
    where they do not."""
    features = metrics.features
    network = (
        "points are their own features"
        if features.sha256 is None
        else f"features {features.name} ({features.dim}, sha256 {features.sha256[:8]})"
    )
    unfit = "" if features.refused is None else f"; REALISM RANKS NOTHING HERE: {features.refused}"
    return (
        f"{metrics.n_source} translated test samples against {metrics.n_reference} of the target's; "
        f"{network}; seed {metrics.seed}{unfit}"
    )


def drifted(row: Row) -> bool:
    """Whether a generator costs more than exact transport, by more than two standard errors.

    An exact minimiser never does, whatever its lambda: this is an optimisation failure (drift), not a
    property of lambda.
    """
    if row.method != GENERATOR or row.ot_cost is None or row.cost_sum is None or not row.cost:
        return False
    relative_error = (row.cost_se or 0.0) / row.cost
    return row.cost_sum * (1 - 2 * relative_error) > row.ot_cost


def registered_note(how: How) -> str:
    """What the mark of a registered generator means under `register.front: how`."""
    certainty = " beyond the 95% intervals of both" if how == "intervals" else ""
    return f"registered: no other generator is better in both cost and realism{certainty} (register.front: {how})"


def format_table(metrics: Metrics, how: How = "intervals") -> str:
    """The results as aligned text: a line that states N, features and seed, then one line a row.

    An asterisk marks what the stage `register` registers under `register.front: how`. Columns that no row has a value
    for are left out.
    """
    shown = [column for column in columns(metrics) if column.heading not in ONLY_IN_REPORT]
    labels = row_labels(metrics.rows)
    lines = [["method", *(column.heading for column in shown)]]
    flags = registered(metrics.rows, how)
    for label, row, flag in zip(labels, metrics.rows, flags, strict=True):
        lines.append([f"{'*' if flag else ' '} {label}", *(column.cell(row) for column in shown)])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    text = [f"{metrics.experiment}: {stated(metrics)}"]
    for line in lines:
        first, *rest = line
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        text.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    if any(flags):
        text.append(f"* {registered_note(how)}")
    if any(drifted(row) for row in metrics.rows):
        names = ", ".join(label for label, row in zip(labels, metrics.rows, strict=True) if drifted(row))
        text.append(f"! {names}: costs more than exact transport, so it has drifted (an optimisation failure)")
    return "\n".join(text) + "\n"


# A terminal is narrow, and so is a page beside a first look at it.
ONLY_IN_REPORT = {"KID", "precision", "recall", "W2", "cost, sum", "L2 in [0,1]", "SSIM", "training s"}


def _within(value: float | None, se: float | None) -> str:
    return plus_minus(value, None if se is None else Z95 * se)


def _share(share: float | None, n: int) -> str:
    """A share in percent with the half-width of its 95% interval (Agresti and Coull 1998)."""
    if share is None:
        return "–"
    steadied = (share * n + 2) / (n + 4)
    half = Z95 * math.sqrt(steadied * (1 - steadied) / (n + 4))
    return f"{100 * share:.1f}% ± {100 * half:.1f}"
