"""The record in MLflow: one parent run per sweep, a child for the teacher, for each lambda and
for what baselines train.

A run in MLflow is found again by tags, never by an id kept elsewhere: a resumed training goes on in the same MLflow
run, and a stage that runs twice adds nothing.
"""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import mlflow.store.db.utils
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from PIL import Image

from flows.environment import ROOT
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.row import Metrics
from rdmd.files import canonical_json
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.store import check_sqlite
from rdmd.training.folder import Point, RunFolder
from rdmd.training.spec import TrainingRun, run_name

FINGERPRINT = "rdmd.run"
SWEEP = "rdmd.sweep"
PARAM_LENGTH = 6000


@dataclass(frozen=True)
class Record:
    """A place in MLflow to record to."""

    client: MlflowClient
    experiment_id: str


def open_record(experiment: str) -> Record:
    """The experiment `rdmd/<experiment>`, made if need be, in the store that MLFLOW_TRACKING_URI names.

    Raises UserError if the store cannot be reached or is not one.
    """
    uri = mlflow.get_tracking_uri()
    check_sqlite(uri)
    with _as_user_errors(uri):
        store = _local_store(uri)
        if store is not None:
            _prepare_local_store(store, uri)
        client = MlflowClient()
        name = f"rdmd/{experiment}"
        found = client.get_experiment_by_name(name)
        if found is None:
            location = (store / "artifacts").as_uri() if store else None
            return Record(client, client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return Record(client, found.experiment_id)


def _local_store(uri: str) -> Path | None:
    """The folder of an SQLite store, which holds the artifacts too; None for a server."""
    scheme = "sqlite:///"
    return Path(uri.removeprefix(scheme)).resolve().parent if uri.startswith(scheme) else None


def _prepare_local_store(store: Path, uri: str) -> None:
    """Make the SQLite schema before anybody writes: several processes on a fresh file corrupt it for good."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = mlflow.store.db.utils.create_sqlalchemy_engine_with_retry(uri)
        try:
            mlflow.store.db.utils._safe_initialize_tables(engine)
        finally:
            engine.dispose()


@contextlib.contextmanager
def _as_user_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(f"the MLflow store {uri} cannot be used ({first}); start it, correct MLFLOW_TRACKING_URI, or "
                        "unset it to use mlflow/store.") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in {"sqlalchemy", "alembic", "sqlite3", "requests", "urllib3"}:
            raise
        raise UserError(f"the MLflow store {uri} cannot be used ({type(error).__name__}); start it, correct "
                        "MLFLOW_TRACKING_URI, or move a damaged mlflow/store aside.") from error


def sweep_run(record: Record, settings: config.Settings, digests: dict[str, str]) -> Run:
    """The parent run of a sweep: the same for the same settings and data, whatever the lambdas."""
    left_out = {"distill": {"lambdas"}, "launch": True, "register_": True}
    described = settings.model_dump(mode="json", by_alias=True, exclude=left_out)
    key = hashlib.sha256(canonical_json({"settings": described, "digests": digests}).encode()).hexdigest()[:16]
    found = find_run(record, SWEEP, key)
    if found is not None:
        return found
    run = record.client.create_run(
        record.experiment_id, run_name=f"sweep {key[:8]}", tags={SWEEP: key, **_provenance(), **digests}
    )
    _log_params(record, run, described)
    return run


def find_run(record: Record, tag: str, value: str) -> Run | None:
    """The newest run that carries a tag, finished or not."""
    runs = record.client.search_runs(
        [record.experiment_id], f"tags.`{tag}` = '{value}'", max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0] if runs else None


@contextlib.contextmanager
def tracked(
    record: Record, parent: Run, folder: RunFolder, run: TrainingRun
) -> Iterator[Callable[[list[Point]], None]]:
    """A child run of `parent` for one training run; gives the function that records new points of its curves.

    Points and grids that the store already holds, from before a crash, are not recorded again.
    """
    child = find_run(record, FINGERPRINT, folder.fingerprint)
    if child is None:
        tags = {FINGERPRINT: folder.fingerprint, MLFLOW_PARENT_RUN_ID: parent.info.run_id, **_provenance()}
        child = record.client.create_run(record.experiment_id, run_name=run_name(run), tags=tags)
        described = run.model_dump(mode="json", exclude={"settings": {"lambdas", "cost_weights"}})
        _log_params(record, child, described)
    elif child.info.status == "FINISHED":
        yield lambda points: None
        return
    else:
        record.client.update_run(child.info.run_id, status="RUNNING")
    run_id = child.info.run_id
    recorder = _Recorder(record.client, run_id, folder)
    try:
        yield recorder.record
    except BaseException as error:
        stopped = isinstance(error, Exception) and isinstance(error, UserError)
        record.client.set_terminated(run_id, status="FAILED" if stopped else "KILLED")
        raise
    recorder.record([])
    result = folder.result()
    if result is not None:
        record.client.log_metric(run_id, "train_seconds", result.train_seconds)
        record.client.log_metric(run_id, "peak_memory_mib", result.peak_memory_mib)
        record.client.set_tag(run_id, "device", result.device)
        record.client.set_tag(run_id, "sha256", result.sha256)
    record.client.set_terminated(run_id, status="FINISHED")


class _Recorder:
    """Sends curves and sample grids to one MLflow run, each once."""

    def __init__(self, client: MlflowClient, run_id: str, folder: RunFolder) -> None:
        self.client, self.run_id, self.folder = client, run_id, folder
        known = client.get_run(run_id).data
        histories = [client.get_metric_history(run_id, name) for name in known.metrics]
        self.last_step = max((metric.step for history in histories for metric in history), default=0)
        self.grids = {Path(item.path).name for item in client.list_artifacts(run_id, "samples")}

    def record(self, points: list[Point]) -> None:
        """Record new points, and the grids that lie in the run's folder by now."""
        new = [point for point in points if point.step > self.last_step]
        if new:
            now = int(time.time() * 1000)
            metrics = [Metric(k, v, now, point.step) for point in new for k, v in point.values.items()]
            for start in range(0, len(metrics), 1000):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + 1000])
            self.last_step = new[-1].step
        for grid in sorted(self.folder.samples.glob("*.png")):
            if grid.name not in self.grids:
                self.client.log_artifact(self.run_id, str(grid), "samples")
                with Image.open(grid) as picture:
                    self.client.log_image(self.run_id, np.asarray(picture), key="samples", step=int(grid.stem))
                self.grids.add(grid.name)


def _log_params(record: Record, run: Run, described: dict[str, object]) -> None:
    params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in _flat("", described)]
    for start in range(0, len(params), 100):
        record.client.log_batch(run.info.run_id, params=params[start : start + 100])


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, value


def _provenance() -> dict[str, str]:
    """The DVC stage and the git commit, as tags."""
    tags = {"git_commit": git_commit()}
    stage = os.environ.get("DVC_STAGE")
    return tags | ({"dvc_stage": stage} if stage else {})


def git_commit() -> str:
    """The commit that is checked out, with `+changes` where the work tree differs; `unknown` outside git."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        state = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True,
                               text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if state.stdout.strip() else "")




def record_evaluation(record: Record, parent: Run, metrics: Metrics, layout: Layout) -> None:
    """Numbers to the runs that they are of, figures and tables to the sweep's run. Recording again replaces."""
    for row in metrics.rows:
        run = find_run(record, FINGERPRINT, row.run) if row.run else None
        if run is not None:
            for name, value in vars(row).items():
                if isinstance(value, float) and name not in {"lam", "train_seconds"}:
                    record.client.log_metric(run.info.run_id, name, value, step=0)
    for file in ("metrics.json", "pareto.csv", "pareto.png", "samples.png", "index.html"):
        record.client.log_artifact(parent.info.run_id, str(layout.reports / file), "reports")
    record.client.set_terminated(parent.info.run_id)
