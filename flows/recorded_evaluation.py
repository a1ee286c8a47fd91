"""An evaluation in MLflow: every row of reports/metrics.json is a child of the sweep, with the names that the file
has, so that MLflow's own pages compare methods and draw their dials against FID and cost."""

import hashlib
import time

from mlflow.entities import Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.datasets import evaluation_data, log_data
from flows.flat_metrics import dials, row_name
from flows.model_metrics import measured
from flows.recorded_training import record_finished
from flows.tracking import FINGERPRINT, Record, find_run, log_params, provenance
from rdmd import config
from rdmd.domains.manifest import read_manifest
from rdmd.evaluation.row import Metrics, Row
from rdmd.files import canonical_json
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.folder import RunFolder

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
