"""Labels of methods, the table of results, and the files `reports/metrics.json` and `reports/pareto.csv`."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from rdmd.errors import UserError
from rdmd.evaluation.row import COUNTERPART, GENERATOR, IDENTITY, TARGET, Interval, Metrics, PairedScores, Row
from rdmd.evaluation.selection import FEW, NEAR, caution, cheapest_near_best, source_realism
from rdmd.files import write_json, write_text

# Labels of methods and numbers

# Half the width of a 95% interval in standard errors.
Z95 = 1.96
_METHODS = {
    GENERATOR: "RDMD",
    IDENTITY: "source as it is",
    TARGET: "target itself",
    COUNTERPART: "true counterpart",
    "sdedit": "SDEdit",
    "sdedit-sde": "SDEdit (SDE)",
    "ilvr": "ILVR",
    "egsde": "EGSDE",
    "ddib": "DDIB",
    "neural-ot": "neural OT",
    "cut": "CUT",
    "teacher": "teacher, from noise",
    "data": "data against data",
    "ot": "exact transport",
}
_SYMBOLS = {
    "sigma_0": "σ₀",
    "sigma": "σ",
    "lambda": "λ",
    "sigma_stop": "stop",
    "cost_weight": "weight",
    "nce_weight": "λ_NCE",
}


def method_name(method: str) -> str:
    """A method's name in print; an unknown method keeps its key."""
    return _METHODS.get(method, method)


def varying_hyperparameters(row: Row, rows: Sequence[Row]) -> list[str]:
    """The settings in which the rows of this row's method (and lambda) differ."""
    alike = [other for other in rows if other.method == row.method and other.lam == row.lam]
    return [key for key in _setting_keys(row) if len({str(other.settings.get(key)) for other in alike}) > 1]


def hyperparameters(row: Row, rows: Sequence[Row]) -> str:
    """Lambda and the settings that tell this row from the others of its method: "λ = 0.1", "σ₀ = 0.6".

    A method with a single row shows its first setting; without settings the label is empty.
    """
    keys = varying_hyperparameters(row, rows)
    if row.lam is None and not keys:
        keys = _setting_keys(row)[:1]
    parts = [] if row.lam is None else [f"λ = {row.lam:g}"]
    for key in keys:
        value = row.settings[key]
        parts.append(f"{_SYMBOLS.get(key, key)} = {f'{value:g}' if isinstance(value, float) else value}")
    return ", ".join(parts)


def row_label(row: Row, rows: Sequence[Row]) -> str:
    """A label such as "RDMD, λ = 0.1", which tells the row from the others of `rows`."""
    return ", ".join(filter(None, [method_name(row.method), hyperparameters(row, rows)]))


def row_labels(rows: Sequence[Row]) -> list[str]:
    """`row_label` of every row."""
    return [row_label(row, rows) for row in rows]


def realism_name(row: Row) -> str:
    """The name of the metric `Row.realism`; "realism" where it could not be measured."""
    names = {"FID": row.fid, "SW2": row.sw2, "KID": row.kid}
    return next((name for name, value in names.items() if value is not None), "realism")


def measured_realism(rows: Sequence[Row]) -> str:
    """`realism_name` of the rows where it was measured: all have the same."""
    return next((realism_name(row) for row in rows if row.realism is not None), "realism")


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, with an exponent only if it is tiny or huge; "–" for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    text = f"{value:#.{digits}g}".rstrip(".")
    return f"{float(text):.0f}" if "e" in text else text


def interval(value: float | None, bounds: Interval | None) -> str:
    """ "40.6 [38.1, 43.5]"; without bounds the number alone."""
    if value is None or bounds is None:
        return number(value)
    return f"{number(value)} [{number(bounds[0])}, {number(bounds[1])}]"


def plus_minus(value: float | None, spread: float | None) -> str:
    """ "0.133 ± 0.002"; without a spread the number alone."""
    if value is None or spread is None:
        return number(value)
    return f"{number(value)} ± {number(spread, 2)}"


def _setting_keys(row: Row) -> list[str]:
    # `run` says where a row came from.
    return [key for key in row.settings if key != "run"]


# The table

# (heading, field of a row, meaning). Fields with the suffix _ci, _se or _std beside the metric give its interval.
_COLUMNS = [
    ("FID", "fid", "Frechet distance of features to the target; 95% bootstrap interval"),
    ("KID", "kid", "kernel distance of features, unbiased; ± deviation between subsets"),
    ("precision", "precision", "share of translations within the target's manifold; ± 95%"),
    ("recall", "recall", "share of the target covered by the translations; ± 95%"),
    ("in class", "class_share", "share of translations that a classifier puts in the target class; ± 95%"),
    ("SW2", "sw2", "sliced 2-Wasserstein distance to the target; 95% bootstrap interval"),
    ("W2", "w2", "exact 2-Wasserstein distance between samples"),
    ("cost", "cost", "squared difference to the source, images in [-1, 1], mean over dimensions; ± 95%"),
    ("cost, sum", "cost_sum", "squared difference to the source, summed over dimensions"),
    ("W2² to target", "ot_cost", "the least summed cost of a map onto the target (exact transport between samples)"),
    ("L2-UVP %", "l2_uvp", "squared distance to the exact map, in percent of the target's variance"),
    ("L2 in [0,1]", "l2_norm01", "Euclidean distance to the source, pixels in [0, 1]; ± 95%"),
    ("PSNR dB", "psnr", "peak signal-to-noise ratio, peak 255 (16 bits: 65535), unchanged counts as 100; ± 95%"),
    ("SSIM", "ssim", "structural similarity to the source; ± 95%"),
    ("colour", "colour_error", "colour error, 0 same hue to 1 complement; ± 95%"),
    ("NFE", "nfe", "network evaluations for a sample"),
    ("ms/sample", "seconds_per_image", "wall-clock time for a sample, median over batches"),
    ("training s", "train_seconds", "wall-clock seconds of training"),
]
_BEFORE_PAIRED = [heading for heading, _, _ in _COLUMNS].index("NFE")
# Headings that a terminal has no room for.
_ONLY_IN_REPORT = {"KID", "precision", "recall", "W2", "cost, sum", "L2 in [0,1]", "SSIM", "training s"}


@dataclass(frozen=True)
class Column:
    """A heading, its meaning, and the cell of a row. The terminal shows the columns that are `short`."""

    heading: str
    meaning: str
    cell: Callable[[Row], str]
    short: bool = False


def columns(metrics: Metrics) -> list[Column]:
    """The columns in which some row has a value."""
    ranking = measured_realism(metrics.rows)
    every = [
        Column(heading, meaning, partial(_cell, metrics, field), heading not in _ONLY_IN_REPORT or heading == ranking)
        for heading, field, meaning in _COLUMNS
    ]
    every[_BEFORE_PAIRED:_BEFORE_PAIRED] = _paired_columns(metrics)
    return [column for column in every if any(column.cell(row) != "–" for row in metrics.rows)]


def _paired_columns(metrics: Metrics) -> Iterator[Column]:
    """The columns of `Row.paired`. The terminal gets the first two."""

    def column(heading: str, meaning: str, cell: Callable[[PairedScores], str], short: bool = False) -> Column:
        return Column(heading, meaning, lambda row: cell(row.paired) if row.paired else "–", short)

    def spread(value: float | None, se: float | None) -> str:
        return plus_minus(value, None if se is None else Z95 * se)

    def share(of: Callable[[PairedScores], float | None]) -> Callable[[PairedScores], str]:
        return lambda paired: _share(of(paired), metrics.n_source)

    yield column(
        "truth dB",
        "peak signal-to-noise ratio to the true counterpart; ± 95%",
        lambda paired: spread(paired.psnr, paired.psnr_se),
        short=True,
    )
    yield column(
        "truth found",
        "share of translations whose nearest true counterpart, in features, is their own; ± 95%",
        share(lambda paired: paired.retrieval),
        short=True,
    )
    yield column(
        "to truth",
        "distance of features to the true counterpart; ± 95%",
        lambda paired: spread(paired.feature_distance, paired.feature_distance_se),
    )
    found = [row.paired for row in metrics.rows if row.paired]
    for name in dict.fromkeys(name for paired in found for name in paired.colour_error):
        yield column(
            f"{name} error",
            f"difference in colour from the true counterpart within its {name}, 0 to 1; ± 95%",
            lambda paired, name=name: spread(paired.colour_error.get(name), paired.colour_error_se.get(name)),  # type: ignore[misc]
        )
    for name in dict.fromkeys(name for paired in found for name in paired.agreement):
        yield column(
            f"same {name}",
            f"share of translations in which a classifier reads the true counterpart's {name}; ± 95%",
            share(lambda paired, name=name: paired.agreement.get(name)),  # type: ignore[misc]
        )


def summary(metrics: Metrics) -> str:
    """One line on which every number depends: sample sizes, features, seed; and why they rank nothing, if so."""
    features = metrics.features
    network = (
        "points are their own features"
        if features.sha256 is None
        else f"features {features.name} ({features.dim}, sha256 {features.sha256[:8]})"
    )
    reason = features.refused or caution(metrics)
    unfit = "" if reason is None else f"; THE RANKING MEANS NOTHING HERE: {reason}"
    if measured_realism(metrics.rows) == "KID":
        unfit = f"; KID takes the place of FID, which is biased on fewer than {FEW} images{unfit}"
    return (
        f"{metrics.n_source} translated test samples against {metrics.n_reference} of the target's; "
        f"{network}; seed {metrics.seed}{unfit}"
    )


def drifted(row: Row) -> bool:
    """Whether a generator costs more than exact transport, by more than two standard errors.

    An exact minimiser never does, for any lambda, so drift is an optimisation failure.
    """
    if row.method != GENERATOR or row.ot_cost is None or row.cost_sum is None or not row.cost:
        return False
    relative_error = (row.cost_se or 0.0) / row.cost
    return row.cost_sum * (1 - 2 * relative_error) > row.ot_cost


FRONT_NOTE = "on the front: no other generator has both less cost and better realism"


def format_table(metrics: Metrics) -> str:
    """The results as aligned text: a line of sample sizes, features and seed, then one line for each row.

    An asterisk marks the generators on the front, which the stage `register` registers.
    """
    shown = [column for column in columns(metrics) if column.short]
    labels = row_labels(metrics.rows)
    lines = [["method", *(column.heading for column in shown)]]
    for label, row in zip(labels, metrics.rows, strict=True):
        lines.append([f"{'*' if row.on_front else ' '} {label}", *(column.cell(row) for column in shown)])
    first, *rest = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    text = [f"{metrics.experiment}: {summary(metrics)}"]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], rest, strict=True)]
        text.append("  ".join([line[0].ljust(first), *cells]).rstrip())
    if any(row.on_front for row in metrics.rows):
        text.append(f"* {FRONT_NOTE}")
    names = ", ".join(label for label, row in zip(labels, metrics.rows, strict=True) if drifted(row))
    if names:
        text.append(f"! {names}: costs more than exact transport, so it has drifted (an optimisation failure)")
    return "\n".join(text) + "\n"


def _cell(metrics: Metrics, field: str, row: Row) -> str:
    value = getattr(row, field)
    match field:
        case "nfe":
            return str(value)
        case "seconds_per_image":
            return number(None if value is None else 1000 * value)
        case "precision" | "class_share":
            return _share(value, metrics.n_source)
        case "recall":
            return _share(value, metrics.n_reference)
    bounds, error, deviation = (getattr(row, f"{field}_{suffix}", None) for suffix in ("ci", "se", "std"))
    return interval(value, bounds) if bounds else plus_minus(value, deviation if error is None else Z95 * error)


def _share(share: float | None, n: int) -> str:
    """A share in percent with the half-width of its 95% interval (Agresti and Coull 1998)."""
    if share is None:
        return "–"
    steadied = (share * n + 2) / (n + 4)
    half = Z95 * math.sqrt(steadied * (1 - steadied) / (n + 4))
    return f"{100 * share:.1f}% ± {100 * half:.1f}"


# Files

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
    # Every key must be there, although the model has defaults, so that a file of another version is recognised.
    for index, row in enumerate(metrics.rows):
        for key in Row.model_fields.keys() - row.model_fields_set:
            raise UserError(f"{path}: `rows.{index}.{'lambda' if key == 'lam' else key}`: Field required; {remedy}.")
    return metrics


def chosen_numbers(row: Row) -> dict[str, float]:
    """Lambda, realism and cost of a row, to five digits, as DVC's metrics and the registry's files have them."""
    kid = row.kid if row.fid is None else None
    numbers = {"lambda": row.lam, "fid": row.fid, "kid": kid, "sw2": row.sw2, "cost": row.cost}
    return {name: float(f"{value:.5g}") for name, value in numbers.items() if value is not None}


def write_summary(metrics: Metrics, path: Path) -> None:
    """Write summary.json, the metrics that DVC compares: for each method the numbers of one setting.

    The setting is the method's cheapest near its best (`rdmd.evaluation.selection`). The untranslated source and
    methods without realism are left out.
    """
    methods: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row.method for row in metrics.rows):
        rows = [row for row in metrics.rows if row.method == method and row.realism is not None]
        if rows and method != IDENTITY:
            points = [(row.cost or 0.0, max(0.0, row.realism or 0.0)) for row in rows]
            methods[method] = chosen_numbers(rows[cheapest_near_best(points, NEAR, source_realism(metrics.rows))])
    write_json(path, methods)


def write_pareto(metrics: Metrics, path: Path) -> None:
    """Write pareto.csv: a line for every row that has a cost and a realism, generators first, by falling lambda.

    `realism` is FID, KID or, for points, SW2 (named in `realism_metric`); `realism_low` and `realism_high` are its 95%
    interval; `label` is unique. An empty cell is a value that does not apply.
    """
    placed = [row for row in metrics.rows if row.cost is not None and row.realism is not None]
    placed.sort(key=lambda row: (row.lam is None, -(row.lam or 0.0)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for row in placed:
        who = [row_label(row, metrics.rows), row.method, row.lam, row.nfe]
        where = [row.cost, row.cost_se, realism_name(row).lower(), row.realism, *(row.realism_ci or (None, None))]
        writer.writerow([*who, *where, str(row.on_front).lower()])
    write_text(path, text.getvalue())
