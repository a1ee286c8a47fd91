"""Runs in MLflow: the store, the experiment, the run of a sweep, and the settings and the data of a run."""

import contextlib
import getpass
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import mlflow.store.db.utils
import numpy as np
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, SourceType
from mlflow.exceptions import MlflowException
from mlflow.types.schema import Schema, TensorSpec
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from flows.environment import DEBUG, ROOT
from rdmd import config
from rdmd.data.manifest import Manifest, read_manifest
from rdmd.data.samples import Split
from rdmd.errors import UserError
from rdmd.files import canonical_json, replacing
from rdmd.pipeline.layout import git_commit
from rdmd.pipeline.store import SCHEME, check_sqlite, relocate, sqlite_file
from rdmd.training.run_config import TeacherRun, TrainingRun

if DEBUG not in sys.argv:
    # It logs a failing store with a traceback for each call; every caller here handles the exception itself.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)

FINGERPRINT = "rdmd.run"
SWEEP = "rdmd.sweep"
PARAM_LENGTH = 6000
# MLflow takes 36 characters; tags and manifests have the whole digest.
DIGEST_LENGTH = 16


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
    with store_errors(uri):
        file = sqlite_file(uri)
        store = file.resolve().parent if file is not None else None
        if file is not None:
            _prepare_local_store(file.resolve(), uri)
        client = MlflowClient()
        name = f"rdmd/{experiment}"
        found = client.get_experiment_by_name(name)
        if found is None:
            location = (store / "artifacts").as_uri() if store else None
            return Record(client, client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return Record(client, found.experiment_id)


def _prepare_local_store(file: Path, uri: str) -> None:
    """Make the SQLite schema before anybody writes: several processes on a fresh file corrupt it for good.

    A fresh file is made elsewhere and put in its place whole: of a process that is killed between two migrations it
    would keep a half of a schema, which MLflow can neither use nor repair.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.parent / "lock"):
        if file.exists():
            _make_schema(uri)
            return
        with tempfile.TemporaryDirectory() as folder, replacing(file) as temporary:
            fresh = Path(folder) / "mlflow.db"
            _make_schema(f"{SCHEME}{fresh}")
            shutil.copyfile(fresh, temporary)


def _make_schema(uri: str) -> None:
    engine = mlflow.store.db.utils.create_sqlalchemy_engine_with_retry(uri)
    try:
        mlflow.store.db.utils._safe_initialize_tables(engine)
    finally:
        engine.dispose()


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Around work on the store at `uri`: raises UserError if the store fails, whatever library says so."""
    try:
        yield
    except MlflowException as error:
        if "disk is full" in str(error):
            raise UserError(f"the MLflow store {uri} has no room; free some space and repeat the command.") from error
        if "database is locked" in str(error):
            raise UserError(
                f"the MLflow store {uri} is locked by another process; end that process or wait for it, and repeat "
                "the command."
            ) from error
        raise UserError(
            f"the MLflow store {uri} cannot be used ({reason(error)}); start it, correct MLFLOW_TRACKING_URI, or "
            "unset it to use mlflow/store."
        ) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in {"sqlalchemy", "alembic", "sqlite3", "requests", "urllib3"}:
            raise
        raise UserError(
            f"the MLflow store {uri} cannot be used ({type(error).__name__}); start it, correct "
            "MLFLOW_TRACKING_URI, or move a damaged mlflow/store aside."
        ) from error


def reason(error: Exception) -> str:
    """Why the store did not answer, in a few words."""
    text = str(error).strip()
    # SQLAlchemy puts the statement and its values around the words of the database.
    of_database = re.search(r"^\(\w+\.\w+\) (.*)$", text, re.MULTILINE)
    first = of_database[1] if of_database else text.splitlines()[0][:200]
    return "it is locked by another process" if "database is locked" in text else first


def sweep_run(record: Record, settings: config.Settings, digests: dict[str, str]) -> Run:
    """The parent run of all trainings: the same for the same settings and data, whatever the lambdas."""
    described = settings.model_dump(
        mode="json",
        by_alias=True,
        exclude={"distill": {"lambdas"}, "evaluate": {"lambdas"}, "launch": True, "register_": True},
    )
    key = hashlib.sha256(canonical_json({"settings": described, "digests": digests}).encode()).hexdigest()[:16]
    found = find_run(record, SWEEP, key)
    if found is not None:
        return found
    run = create_run(record, f"sweep {key[:8]}", {SWEEP: key, **provenance_tags(), **digests})
    log_params(record, run, described)
    # Nothing runs yet; `running_sweep` says when something does.
    record.client.set_terminated(run.info.run_id)
    return record.client.get_run(run.info.run_id)


def create_run(record: Record, name: str, tags: Mapping[str, str]) -> Run:
    """Make a run, with the tags from which MLflow's pages show who created it, by which program and commit."""
    # A DVC experiment in a copy runs the copy's programs, in the copy.
    program, project, commit = Path(sys.argv[0]).resolve(), Path.cwd().resolve(), git_commit(ROOT)
    source = {
        MLFLOW_USER: user_name(),
        MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.LOCAL),
        MLFLOW_SOURCE_NAME: str(program.relative_to(project)) if program.is_relative_to(project) else program.name,
    }
    if commit is not None:
        source[MLFLOW_GIT_COMMIT] = commit.sha
    return record.client.create_run(record.experiment_id, run_name=name, tags={**source, **tags})


def user_name() -> str:
    """The name of the user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number without a name.
        return "a user without a name"


def find_run(record: Record, tag: str, value: str, parent: Run | None = None) -> Run | None:
    """The newest run that carries a tag, finished or not, of all or of the children of `parent`."""
    wanted = f"tags.`{tag}` = '{value}'"
    if parent is not None:
        wanted += f" AND tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
    runs = record.client.search_runs(
        [record.experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0] if runs else None


def running_children(record: Record, parent_id: str) -> list[Run]:
    """The children of a run that MLflow shows as running."""
    wanted = f"attributes.status = 'RUNNING' AND tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}'"
    return list(record.client.search_runs([record.experiment_id], wanted))


def log_params(record: Record, run: Run, settings: Mapping[str, object]) -> None:
    """Record settings by dotted keys, with the values as YAML has them. Parameters of `run` stay as they are."""
    params = [
        Param(key, (value if isinstance(value, str) else json.dumps(value))[:PARAM_LENGTH])
        for key, value in _dotted("", settings)
        if key not in run.data.params
    ]
    for start in range(0, len(params), 100):
        record.client.log_batch(run.info.run_id, params=params[start : start + 100])


def _dotted(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _dotted(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, value


def provenance_tags() -> dict[str, str]:
    """The git commit and the DVC stage, as tags."""
    tags = {"git_commit": str(git_commit(ROOT) or "unknown")}
    stage = os.environ.get("DVC_STAGE")
    return tags | ({"dvc_stage": stage} if stage else {})


def pair_digest(source: str, target: str) -> str:
    """The digest of two domains together, such as `1f0c...-77ab...`: 33 characters."""
    return f"{source[:DIGEST_LENGTH]}-{target[:DIGEST_LENGTH]}"


def training_inputs(run: TrainingRun) -> list[DatasetInput]:
    """The train splits that a run learns from."""
    domains = [run.target] if isinstance(run, TeacherRun) else [run.source, run.target]
    return [_input(_of_domain(domain.path, "train"), "training") for domain in domains]


def evaluation_data(source_digest: str, target_digest: str, shards: Path | None = None) -> DatasetInput:
    """The test splits of both domains as one dataset, since a method is measured on the two together.

    Its shape and counts come from the folder `shards`, where there is one.
    """
    manifests = [read_manifest(shards / name) for name in ("source", "target")] if shards else []
    counts = {f"num_{manifest.domain}": manifest.counts["test"] for manifest in manifests}
    data = Dataset(
        name="test",
        digest=pair_digest(source_digest, target_digest),
        source_type="local",
        source=json.dumps({"uri": "data/shards", "source_digest": source_digest, "target_digest": target_digest}),
        schema=_schema(manifests[0]) if manifests else None,
        profile=json.dumps(counts) if manifests else None,
    )
    return _input(data, "evaluation")


def log_data(client: MlflowClient, run_id: str, data: list[DatasetInput]) -> None:
    """Record that a run used `data`. Repeating it changes nothing."""
    try:
        client.log_inputs(run_id, data)
    except MlflowException:
        # Of two runs that begin together with new data, one finds that the other has just made the entry.
        client.log_inputs(run_id, data)


def _of_domain(folder: Path, split: Split) -> Dataset:
    manifest = read_manifest(folder)
    return Dataset(
        name=f"{manifest.domain}-{split}",
        digest=manifest.digest[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": str(folder), "digest": manifest.digest, "reader": manifest.reader}),
        schema=_schema(manifest),
        profile=json.dumps({"num_rows": manifest.counts[split], "labels": manifest.label_counts[split]}),
    )


def _schema(manifest: Manifest) -> str:
    sample = TensorSpec(np.dtype(manifest.dtype), (-1, *manifest.sample_shape), "sample")
    return json.dumps(TensorDatasetSchema(features=Schema([sample])).to_dict())


def _input(data: Dataset, context: str) -> DatasetInput:
    return DatasetInput(dataset=data, tags=[InputTag(MLFLOW_DATASET_CONTEXT, context)])
