"""`reports/metrics.json` and `reports/pareto.csv`: the numbers, for programs to read."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rdmd.errors import UserError
from rdmd.evaluation.labels import realism_name, row_labels
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.files import write_json, write_text

# The order in which a row's keys are written; "lambda" is `lam` in Python.
_FIRST = ["method", "lambda", "settings", "run", "nfe"]
_CSV_HEADER = ["label", "method", "lambda", "nfe", "cost", "cost_se", "realism_metric", "realism"]
_CSV_HEADER += ["realism_low", "realism_high", "on_front"]
_LAST = ["seconds_per_image", "train_seconds", "on_front"]


def write_metrics(metrics: Metrics, path: Path) -> None:
    """Write metrics.json, whole or not at all; the same metrics give the same bytes."""
    write_json(
        path,
        {
            "experiment": metrics.experiment,
            "seed": metrics.seed,
            "features": dataclasses.asdict(metrics.features),
            "n_source": metrics.n_source,
            "n_reference": metrics.n_reference,
            "rows": [row_to_json(row) for row in metrics.rows],
        },
    )


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json.

    Raises `UserError` if the file is missing, is not JSON, or has a missing, unknown or ill-typed key.
    """
    remedy = "make it again with `rdmd evaluate`"
    try:
        parsed = _File.model_validate_json(path.read_bytes())
    except OSError:
        raise UserError(f"{path} cannot be read; {remedy}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: `{key}`: {first['msg']}; {remedy}.") from None
    return Metrics(
        experiment=parsed.experiment,
        seed=parsed.seed,
        features=FeaturesRecord(**parsed.features.model_dump()),
        n_source=parsed.n_source,
        n_reference=parsed.n_reference,
        rows=[Row(**row.model_dump()) for row in parsed.rows],
    )


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


def row_to_json(row: Row) -> dict[str, Any]:
    """A row with the keys of the file."""
    values = {"lambda" if key == "lam" else key: value for key, value in dataclasses.asdict(row).items()}
    middle = [key for key in values if key not in _FIRST + _LAST]
    return json.loads(json.dumps({key: values[key] for key in _FIRST + middle + _LAST}, allow_nan=False))


def row_from_json(values: dict[str, Any]) -> Row:
    """The inverse of `row_to_json`. Raises pydantic's `ValidationError` for a missing, unknown or ill-typed key."""
    return Row(**_Row.model_validate(values).model_dump())


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _not_a_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a yes/no stands where a number is needed")
    return value


_Number = Annotated[float, BeforeValidator(_not_a_bool)] | None
_Interval = tuple[float, float] | None


class _Features(_Strict):
    name: str
    sha256: str | None
    dim: int
    refused: str | None


class _Row(_Strict):
    """A row in the file. Every key must be there, so that a file of another version is told from ours."""

    method: str
    lam: _Number = Field(alias="lambda")
    settings: dict[str, int | float | str]
    run: str | None
    nfe: int
    fid: _Number
    fid_ci: _Interval
    kid: _Number
    kid_std: _Number
    precision: _Number
    recall: _Number
    class_share: _Number
    cost: _Number
    cost_se: _Number
    cost_sum: _Number
    l2_norm01: _Number
    l2_norm01_se: _Number
    psnr: _Number
    psnr_se: _Number
    ssim: _Number
    ssim_se: _Number
    colour_error: _Number
    colour_error_se: _Number
    sw2: _Number
    sw2_ci: _Interval
    w2: _Number
    l2_uvp: _Number
    ot_cost: _Number
    seconds_per_image: _Number
    train_seconds: _Number
    on_front: bool


class _File(_Strict):
    experiment: str
    seed: int
    features: _Features
    n_source: int
    n_reference: int
    rows: list[_Row]
