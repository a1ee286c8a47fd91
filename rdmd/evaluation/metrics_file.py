"""`reports/metrics.json` and `reports/pareto.csv`: the numbers, for programs to read."""

import csv
import io
from pathlib import Path

from pydantic import ValidationError

from rdmd.errors import UserError
from rdmd.evaluation.labels import realism_name, row_labels
from rdmd.evaluation.row import Metrics, Row
from rdmd.files import write_json, write_text

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
