"""An evaluation in MLflow: metrics of the sweep's run and of registered versions."""

import hashlib
import sys
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.tracking.datasets import evaluation_data, log_data
from flows.tracking.runs import FINGERPRINT, Record, find_run, log_params, provenance
from flows.tracking.training import record_finished
from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.errors import UserError, reporting
from rdmd.evaluation.row import Metrics, Row
from rdmd.evaluation.selection import Evaluation
from rdmd.evaluation.table import read_metrics
from rdmd.files import canonical_json, write_json
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.run_config import lambda_name
from rdmd.training.run_folder import RunFolder

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
        raise UserError("name one file to write: `python -m flows.tracking.evaluation metrics.json`.")
    write_json(Path(arguments[0]), flat(read_metrics(Layout().metrics)))


if __name__ == "__main__":
    with reporting(debug=False):
        main(sys.argv[1:])


_NOT_MEASURED = {"lam", "train_seconds"}


def measured(row: Row) -> dict[str, float]:
    """The numbers of a row by their name in metrics.json; an interval as its two ends."""
    numbers: dict[str, float] = {}
    for name, value in vars(row).items():
        if isinstance(value, tuple):
            numbers |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        elif isinstance(value, float) and name not in _NOT_MEASURED:
            numbers[name] = value
    return numbers


def tie(client: MlflowClient, version: ModelVersion, row: Row, evaluation: Evaluation) -> None:
    """Give the version's model the row's numbers. The same numbers again add nothing, other data add to them.

    A version whose run was deleted is left as it is.
    """
    if client.get_run(version.run_id).info.lifecycle_stage != "active":
        return
    data = evaluation_data(evaluation.source_digest, evaluation.target_digest)
    log_data(client, version.run_id, [data])
    model_id = version.source.removeprefix("models:/")
    model = client.get_logged_model(model_id)
    known = {(one.key, one.dataset_digest, one.value) for one in model.metrics or []}
    for name, value in measured(row).items():
        if (name, data.dataset.digest, value) not in known:
            client.log_metric(
                version.run_id,
                name,
                value,
                step=0,
                model_id=model_id,
                dataset_name=data.dataset.name,
                dataset_digest=data.dataset.digest,
            )


# Of a child that stands for a row of the metrics without a training of its own.
ROW = "rdmd.row"
REPORTS = ("metrics.json", "pareto.csv", "pareto.png", "samples.png", "index.html")


def record_evaluation(record: Record, parent: Run, metrics: Metrics, layout: Layout) -> None:
    """Each row's numbers to its run, figures, tables and params.yaml to the sweep's run. Recording again replaces."""
    digests = [read_manifest(layout.shards / name).digest for name in ("source", "target")]
    data = evaluation_data(*digests, layout.shards)
    # Where DVC skipped the stage that would have recorded it for this sweep.
    _record_from_files(record, parent, read_card(layout.teacher).run, layout)
    for row in metrics.rows:
        run = _run_of(record, parent, row, layout)
        log_data(record.client, run.info.run_id, [data])
        log_params(record, run, _described(row))
        _log_measured(record, run, row)
        record.client.set_tag(run.info.run_id, "on_front", str(row.on_front).lower())
    log_data(record.client, parent.info.run_id, [data])
    for name in REPORTS:
        record.client.log_artifact(parent.info.run_id, str(layout.reports / name), "reports")
    if (layout.root / config.PARAMS).exists():
        record.client.log_artifact(parent.info.run_id, str(layout.root / config.PARAMS))
    record.client.set_terminated(parent.info.run_id)


def _run_of(record: Record, parent: Run, row: Row, layout: Layout) -> Run:
    """The child of a row: the run that trained it, or one that stands for the row."""
    if row.run is None:
        return _stand_in(record, parent, row_name(row), ROW, _key(parent, row))
    found = find_run(record, FINGERPRINT, row.run, parent)
    if found is None:
        _record_from_files(record, parent, row.run, layout)
        found = find_run(record, FINGERPRINT, row.run, parent)
    return found or _stand_in(record, parent, row_name(row), FINGERPRINT, row.run)


def _record_from_files(record: Record, parent: Run, fingerprint: str, layout: Layout) -> None:
    folder = RunFolder(layout.runs / fingerprint)
    if folder.run_file.exists() and folder.result() is not None:
        record_finished(record, parent, folder)


def _stand_in(record: Record, parent: Run, name: str, tag: str, value: str) -> Run:
    found = find_run(record, tag, value, parent)
    if found is not None:
        return found
    tags = {tag: value, MLFLOW_PARENT_RUN_ID: parent.info.run_id, **provenance()}
    made = record.client.create_run(record.experiment_id, run_name=name, tags=tags)
    record.client.set_terminated(made.info.run_id)
    return record.client.get_run(made.info.run_id)


def _key(parent: Run, row: Row) -> str:
    told_apart = {"sweep": parent.info.run_id, "method": row.method, "lambda": row.lam, "settings": dials(row)}
    return hashlib.sha256(canonical_json(told_apart).encode()).hexdigest()[:16]


def _described(row: Row) -> dict[str, object]:
    lam = {} if row.lam is None else {"lambda": row.lam}
    return {"method": row.method, "nfe": row.nfe, **lam, **dials(row)}


def _log_measured(record: Record, run: Run, row: Row) -> None:
    """What differs from what the run has: MLflow keeps a point for every call."""
    now = int(time.time() * 1000)
    new = [Metric(key, value, now, 0) for key, value in measured(row).items() if run.data.metrics.get(key) != value]
    if new:
        record.client.log_batch(run.info.run_id, metrics=new)
