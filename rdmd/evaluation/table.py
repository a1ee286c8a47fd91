"""Names of methods and metrics in print, the table of results, and `reports/pareto.csv`."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rdmd.errors import UserError
from rdmd.evaluation.row import GENERATOR, IDENTITY, TARGET, Metrics, Row
from rdmd.evaluation.selection import How, registered
from rdmd.files import write_json, write_text

_METHODS = {
    GENERATOR: "RDMD",
    IDENTITY: "source as it is",
    TARGET: "target itself",
    "sdedit": "SDEdit",
    "sdedit-sde": "SDEdit (SDE)",
    "ilvr": "ILVR",
    "egsde": "EGSDE",
    "ddib": "DDIB",
    "neural-ot": "neural OT",
    "teacher": "teacher, from noise",
    "data": "data against data",
    "ot": "exact transport",
}
_SYMBOLS = {"sigma_0": "σ₀", "sigma": "σ", "lambda": "λ", "sigma_stop": "stop", "cost_weight": "weight"}
# Says where a row came from, which is no dial.
_RUN = "run"


def method_name(method: str) -> str:
    """A method's name in print; unknown ones as they are."""
    return _METHODS.get(method, method)


def dial(row: Row, rows: Sequence[Row]) -> str:
    """The settings that tell this row from the others of its method: "λ = 0.1", "σ₀ = 0.6"; empty if there
    are none.

    A method with one row shows its first setting.
    """
    if row.lam is not None:
        parts = [f"λ = {row.lam:g}"]
    elif row.settings:
        parts = []
    else:
        return ""
    varying = varying_dials(row, rows)
    if not varying and not parts:
        varying = [key for key in row.settings if key != _RUN][:1]
    parts += [f"{_SYMBOLS.get(key, key)} = {_plain(row.settings[key])}" for key in varying]
    return ", ".join(parts)


def varying_dials(row: Row, rows: Sequence[Row]) -> list[str]:
    """The settings in which the rows of this row's method (and lambda) differ."""
    alike = [other for other in rows if other.method == row.method and other.lam == row.lam]
    dials = [key for key in row.settings if key != _RUN]
    return [key for key in dials if len({str(other.settings.get(key)) for other in alike}) > 1]


def row_label(row: Row, rows: Sequence[Row]) -> str:
    """A label such as "RDMD, λ = 0.1", which tells the row from the others of `rows`."""
    return ", ".join(filter(None, [method_name(row.method), dial(row, rows)]))


def row_labels(rows: Sequence[Row]) -> list[str]:
    """`row_label` of every row."""
    return [row_label(row, rows) for row in rows]


def realism_name(row: Row) -> str:
    """The metric that `Row.realism` is; "realism" where it could not be measured."""
    return "FID" if row.fid is not None else "realism" if row.sw2 is None else "SW2"


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent where it can be helped; "–" for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    text = f"{value:#.{digits}g}".rstrip(".")
    return f"{float(text):.0f}" if "e" in text else text


def interval(value: float | None, bounds: tuple[float, float] | None) -> str:
    """ "40.6 [38.1, 43.5]"; without bounds the number alone."""
    if value is None or bounds is None:
        return number(value)
    return f"{number(value)} [{number(bounds[0])}, {number(bounds[1])}]"


def plus_minus(value: float | None, spread: float | None) -> str:
    """ "0.133 ± 0.002"; without a spread the number alone."""
    if value is None or spread is None:
        return number(value)
    return f"{number(value)} ± {number(spread, 2)}"


def _plain(value: float | int | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_CSV_HEADER = ["label", "method", "lambda", "nfe", "cost", "cost_se", "realism_metric", "realism"]
_CSV_HEADER += ["realism_low", "realism_high", "on_front"]


def write_metrics(metrics: Metrics, path: Path) -> None:
    """Write metrics.json, whole or not at all; the same metrics give the same bytes."""
    write_json(path, metrics.model_dump(mode="json", by_alias=True))


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json.

    Raises `UserError` if the file is missing, is not JSON, or has a missing, unknown or ill-typed key.
    """
    remedy = "make it again with `rdmd evaluate`"
    try:
        metrics = Metrics.model_validate_json(path.read_bytes())
    except OSError:
        raise UserError(f"{path} cannot be read; {remedy}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: `{key}`: {first['msg']}; {remedy}.") from None
    except FloatingPointError as error:
        raise UserError(f"{path}: {error}; {remedy}.") from None
    # In Python a metric may be left out, in the file no key may: so a file of another version is recognised.
    for index, row in enumerate(metrics.rows):
        for key in Row.model_fields:
            if key not in row.model_fields_set:
                name = "lambda" if key == "lam" else key
                raise UserError(f"{path}: `rows.{index}.{name}`: Field required; {remedy}.")
    return metrics


def write_pareto(metrics: Metrics, path: Path) -> None:
    """Write pareto.csv: a line for every row that has a cost and a realism, generators first, by falling
    lambda.

    `realism` is FID or, for points, SW2 (named in `realism_metric`); `realism_low` and `realism_high` are
    its 95% interval; `label` is unique. An empty cell is a value that does not apply.
    """
    labels = row_labels(metrics.rows)
    placed = [
        (label, row)
        for label, row in zip(labels, metrics.rows, strict=True)
        if row.cost is not None and row.realism is not None
    ]
    placed.sort(key=lambda pair: (pair[1].lam is None, -(pair[1].lam or 0.0)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for label, row in placed:
        low, high = row.realism_ci or (None, None)
        who = [label, row.method, row.lam, row.nfe]
        where = [row.cost, row.cost_se, realism_name(row).lower(), row.realism, low, high]
        writer.writerow([*who, *where, str(row.on_front).lower()])
    write_text(path, text.getvalue())


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
