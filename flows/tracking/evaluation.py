"""An evaluation in MLflow: the numbers of every row, as metrics of the sweep's runs and of registered models."""

import time
from collections import Counter

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.tracking.runs import (
    FINGERPRINT,
    Record,
    create_run,
    evaluation_data,
    find_run,
    log_data,
    log_params,
    provenance_tags,
)
from flows.tracking.training import record_finished
from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.evaluation.row import Metrics, Row
from rdmd.evaluation.selection import Evaluation
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.run_config import lambda_name
from rdmd.training.run_folder import RunFolder

# Tag of a child run that stands for a row of the metrics without a training of its own.
ROW = "rdmd.row"
REPORTS = ("metrics.json", "pareto.csv", "pareto.png", "samples.png", "index.html")
_NOT_MEASURED = {"lam", "train_seconds"}


def row_name(row: Row) -> str:
    """`lambda-0.05`, or a method with its hyperparameters: `sdedit sigma 0.5 steps 3`."""
    if row.lam is not None:
        return lambda_name(row.lam)
    return " ".join([row.method, *(f"{key} {value}" for key, value in _hyperparameters(row).items())])


def _hyperparameters(row: Row) -> dict[str, float | int | str]:
    return {key: value for key, value in row.settings.items() if key != "run"}


def numbers_of(row: Row) -> dict[str, float]:
    """The measured numbers of a row by their name in metrics.json; an interval as its two ends."""
    numbers: dict[str, float] = {}
    for name, value in vars(row).items():
        if isinstance(value, tuple):
            numbers |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        elif isinstance(value, float) and name not in _NOT_MEASURED:
            numbers[name] = value
    return numbers


def log_evaluation_of_model(client: MlflowClient, version: ModelVersion, row: Row, evaluation: Evaluation) -> None:
    """Log the row's numbers as metrics of the version's model. The same numbers of the same data are logged once.

    A version whose run was deleted is left as it is.
    """
    run_id, source = version.run_id, version.source
    if run_id is None or source is None or client.get_run(run_id).info.lifecycle_stage != "active":
        return
    data = evaluation_data(evaluation.source_digest, evaluation.target_digest)
    log_data(client, run_id, [data])
    name, digest = data.dataset.name, data.dataset.digest
    model_id = source.removeprefix("models:/")
    logged = {
        (metric.key, metric.dataset_digest, metric.value) for metric in client.get_logged_model(model_id).metrics or []
    }
    for key, value in numbers_of(row).items():
        if (key, digest, value) not in logged:
            client.log_metric(run_id, key, value, step=0, model_id=model_id, dataset_name=name, dataset_digest=digest)


def record_evaluation(record: Record, parent: Run, metrics: Metrics, layout: Layout) -> None:
    """Log each row's numbers to its run, and figures, tables and params.yaml to the sweep's run `parent`.

    Recording again replaces.
    """
    source, target = (read_manifest(layout.shards / name).digest for name in ("source", "target"))
    data = evaluation_data(source, target, layout.shards)
    # Where DVC skipped the stage that would have recorded it for this sweep.
    _record_from_files(record, parent, read_card(layout.teacher).run, layout)
    trained = Counter(row.run for row in metrics.rows)
    for row in metrics.rows:
        # A generator of several lambdas has a row for each, and each row has a run beside that of the training.
        recorded = row if trained[row.run] == 1 else row.model_copy(update={"run": None})
        run = _run_of_row(record, parent, recorded, layout)
        log_data(record.client, run.info.run_id, [data])
        lam = {} if row.lam is None else {"lambda": row.lam}
        log_params(record, run, {"method": row.method, "nfe": row.nfe, **lam, **_hyperparameters(row)})
        _log_changed_metrics(record, run, row)
        record.client.set_tag(run.info.run_id, "on_front", str(row.on_front).lower())
    log_data(record.client, parent.info.run_id, [data])
    for name in REPORTS:
        record.client.log_artifact(parent.info.run_id, str(layout.reports / name), "reports")
    if (layout.root / config.PARAMS).exists():
        record.client.log_artifact(parent.info.run_id, str(layout.root / config.PARAMS))


def _run_of_row(record: Record, parent: Run, row: Row, layout: Layout) -> Run:
    """The child of a row: the run that trained it, or a run without a training."""
    name = row_name(row)
    tag, value = (ROW, name) if row.run is None else (FINGERPRINT, row.run)
    found = find_run(record, tag, value, parent)
    if found is None and row.run is not None:
        _record_from_files(record, parent, row.run, layout)
        found = find_run(record, tag, value, parent)
    if found is not None:
        return found
    tags = {tag: value, MLFLOW_PARENT_RUN_ID: parent.info.run_id, **provenance_tags()}
    made = create_run(record, name, tags)
    record.client.set_terminated(made.info.run_id)
    return record.client.get_run(made.info.run_id)


def _record_from_files(record: Record, parent: Run, fingerprint: str, layout: Layout) -> None:
    folder = RunFolder(layout.runs / fingerprint)
    if folder.run_file.exists() and folder.result() is not None:
        record_finished(record, parent, folder)


def _log_changed_metrics(record: Record, run: Run, row: Row) -> None:
    """Log the numbers that differ from those of the run: MLflow keeps a point for every call."""
    now = int(time.time() * 1000)
    new = [Metric(key, value, now, 0) for key, value in numbers_of(row).items() if run.data.metrics.get(key) != value]
    if new:
        record.client.log_batch(run.info.run_id, metrics=new)
