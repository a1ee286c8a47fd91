"""What the machine does while a run trains: CPU, memory, disk, network, and GPUs where MLflow can ask them, as the
`system/` metrics of its MLflow run."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import mlflow.store.db.utils
from mlflow import MlflowClient
from mlflow.entities import Param, Run
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.environment import ROOT
from rdmd import config
from rdmd.errors import UserError
from rdmd.files import canonical_json
from rdmd.pipeline.store import check_sqlite, relocate

PREFIX = "system/"
# A point for each; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets another. Runs shorter than this have none.
SAMPLING_SECONDS = 10.0


def wanted() -> bool:
    """Whether MLflow's switch leaves system metrics on."""
    return not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.is_set() or bool(MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get())


@contextlib.contextmanager
def system_metrics(run_id: str) -> Iterator[None]:
    """Watch this machine for the length of the block; a resumed run's curves go on.

    Where the system tells nothing, or MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false, nothing is recorded: training
    never fails for it. GPUs need the package nvidia-ml-py (NVIDIA) or pyrsmi (AMD).
    """
    monitor = None
    if wanted():
        try:
            monitor = SystemMetricsMonitor(run_id, sampling_interval=SAMPLING_SECONDS, resume_logging=True)
        except Exception as error:
            logging.getLogger(__name__).warning("no system metrics are recorded: %s", error)
    if monitor is None:
        yield
        return
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


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
    relocate(uri)
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
        raise UserError(
            f"the MLflow store {uri} cannot be used ({first}); start it, correct MLFLOW_TRACKING_URI, or "
            "unset it to use mlflow/store."
        ) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in {"sqlalchemy", "alembic", "sqlite3", "requests", "urllib3"}:
            raise
        raise UserError(
            f"the MLflow store {uri} cannot be used ({type(error).__name__}); start it, correct "
            "MLFLOW_TRACKING_URI, or move a damaged mlflow/store aside."
        ) from error


def sweep_run(record: Record, settings: config.Settings, digests: dict[str, str]) -> Run:
    """The parent run of a sweep: the same for the same settings and data, whatever the lambdas."""
    left_out = {"distill": {"lambdas"}, "launch": True, "register_": True}
    described = settings.model_dump(mode="json", by_alias=True, exclude=left_out)
    key = hashlib.sha256(canonical_json({"settings": described, "digests": digests}).encode()).hexdigest()[:16]
    found = find_run(record, SWEEP, key)
    if found is not None:
        return found
    run = record.client.create_run(
        record.experiment_id, run_name=f"sweep {key[:8]}", tags={SWEEP: key, **provenance(), **digests}
    )
    log_params(record, run, described)
    return run


def find_run(record: Record, tag: str, value: str, parent: Run | None = None) -> Run | None:
    """The newest run that carries a tag, finished or not, of all or of the children of `parent`."""
    wanted = f"tags.`{tag}` = '{value}'"
    if parent is not None:
        wanted += f" AND tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
    runs = record.client.search_runs(
        [record.experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0] if runs else None


def log_params(record: Record, run: Run, described: dict[str, object]) -> None:
    """Record settings by dotted keys, with the values as YAML has them. What `run` has already stays as it is."""
    new = [(key, value) for key, value in _flat("", described) if key not in run.data.params]
    params = [Param(key, _as_typed(value)[:PARAM_LENGTH]) for key, value in new]
    for start in range(0, len(params), 100):
        record.client.log_batch(run.info.run_id, params=params[start : start + 100])


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, value


def _as_typed(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def provenance() -> dict[str, str]:
    """The DVC stage and the git commit, as tags."""
    tags = {"git_commit": git_commit()}
    stage = os.environ.get("DVC_STAGE")
    return tags | ({"dvc_stage": stage} if stage else {})


def git_commit() -> str:
    """The commit that is checked out, with `+changes` where the work tree differs; `unknown` outside git."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        state = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if state.stdout.strip() else "")
