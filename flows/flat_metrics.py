"""The numbers of reports/metrics.json by method, for `dvc metrics diff`, which sees no lists:
`python -m flows.flat_metrics FILE`, then `dvc metrics diff --md --targets FILE REVISION`."""

import sys
from pathlib import Path

from rdmd.errors import UserError, reporting
from rdmd.evaluation.metrics_file import read_metrics
from rdmd.evaluation.row import Metrics, Row
from rdmd.files import write_json
from rdmd.pipeline.layout import Layout
from rdmd.training.spec import lambda_name

SHOWN = ("fid", "sw2", "cost", "class_share")
# FID and costs of one machine's runs agree in more digits than anybody compares.
DIGITS = 5


def row_name(row: Row) -> str:
    """`lambda-0.05`, or a method with its dials: `sdedit sigma 0.5 steps 3`."""
    if row.lam is not None:
        return lambda_name(row.lam)
    return " ".join([row.method, *(f"{key} {value}" for key, value in dials(row).items())])


def dials(row: Row) -> dict[str, float | int | str]:
    """The settings that a person chose."""
    return {key: value for key, value in row.settings.items() if key != "run"}


def flat(metrics: Metrics) -> dict[str, dict[str, float]]:
    """What `SHOWN` names of every row, rounded to `DIGITS` digits."""
    return {
        row_name(row): {
            name: float(f"{value:.{DIGITS}g}") for name in SHOWN if (value := getattr(row, name)) is not None
        }
        for row in metrics.rows
    }


def main(arguments: list[str]) -> None:
    """Write the file that is named."""
    if len(arguments) != 1:
        raise UserError("name one file to write: `python -m flows.flat_metrics metrics.json`.")
    write_json(Path(arguments[0]), flat(read_metrics(Layout().metrics)))


if __name__ == "__main__":
    with reporting(debug=False):
        main(sys.argv[1:])
