"""What a project keeps but needs no longer: old runs, checkpoints, features, and the runs deleted in MLflow.

Nothing here is needed to repeat a result: a run is trained again if somebody asks for it, and features are computed
again. A model, the file dvc.lock and a version in the registry protect the run that trained them.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import joblib

from rdmd.errors import UserError
from rdmd.pipeline.dvc_cache import locked_models, run_of
from rdmd.pipeline.layout import Layout, use_local_tracking
from rdmd.pipeline.store import asking_for, is_local, sqlite_file
from rdmd.training.run_folder import RunFolder

Kind = Literal["run", "checkpoint", "features", "record"]
DESCRIPTIONS: dict[Kind, str] = {
    "run": "runs to which no model, dvc.lock or registered version refers",
    "checkpoint": "checkpoints of finished runs",
    "features": "features of images, which are computed again when they are needed",
    "record": "runs that somebody deleted in MLflow",
}
DAY = 86_400
# The tag of an MLflow run with the name of its folder in runs/.
_RUN_TAG = "rdmd.run"


@dataclass(frozen=True)
class Unused:
    """Something to delete, and the bytes that this frees. The `path` of a record is the folder of its artifacts."""

    kind: Kind
    path: Path
    size: int


def find_unused(layout: Layout, days: float) -> list[Unused]:
    """What nobody has used for `days` days and nothing refers to. Raises UserError if the registry cannot be asked."""
    before = time.time() - days * DAY
    registered = _registered()
    kept = _of_models(layout) | set(locked_models(layout.root)) | set(registered.values())
    return [*_runs(layout, kept, before), *_features(layout, before), *_records(set(registered), before)]


def delete(unused: list[Unused]) -> None:
    """Delete what `find_unused` found; a run that is being trained stays. Raises UserError if MLflow fails."""
    for item in unused:
        if item.kind == "run":
            # Held by a training: it started just now, and the run is used again.
            with contextlib.suppress(UserError), RunFolder(item.path).locked():
                # So that no half of a run is left under its name.
                aside = item.path.with_name(f".{item.path.name.lstrip('.')}.old")
                shutil.rmtree(item.path.rename(aside))
        elif item.kind == "checkpoint":
            item.path.unlink(missing_ok=True)
        elif item.kind == "features":
            shutil.rmtree(item.path, ignore_errors=True)
    # .../ID/artifacts
    records = [item.path.parent.name for item in unused if item.kind == "record"]
    if records:
        uri = os.environ["MLFLOW_TRACKING_URI"]
        gc = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--run-ids", ",".join(records)]
        done = subprocess.run(gc, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"`mlflow gc` could not remove the deleted runs of {uri} ({last}); repeat it by hand.")


def _runs(layout: Layout, kept: set[str], before: float) -> Iterator[Unused]:
    if not layout.runs.is_dir():
        return
    for path in sorted(layout.runs.iterdir()):
        folder = RunFolder(path)
        ours = folder.run_file.is_file() or path.name.startswith(".")
        if path.is_symlink() or not path.is_dir() or not ours or _last_change(path) > before:
            continue
        if path.name not in kept:
            yield Unused("run", path, _size(path))
        elif folder.checkpoint.is_file() and _is_finished(folder):
            yield Unused("checkpoint", folder.checkpoint, folder.checkpoint.stat().st_size)


def _is_finished(folder: RunFolder) -> bool:
    with contextlib.suppress(ValueError):
        return folder.result() is not None
    return False


def _features(layout: Layout, before: float) -> Iterator[Unused]:
    if layout.feature_cache.is_dir():
        for item in joblib.Memory(layout.feature_cache, verbose=0).store_backend.get_items():
            if item.last_access.timestamp() <= before:
                yield Unused("features", Path(item.path), item.size)


def _records(kept: set[str], before: float) -> Iterator[Unused]:
    """Runs deleted in a local store. A server removes its own, by the `mlflow gc` of whoever runs it."""
    file = _local_store()
    if file is None:
        return
    with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as store:
        try:
            found = store.execute(
                "SELECT artifact_uri FROM runs WHERE lifecycle_stage = 'deleted' AND deleted_time <= ?",
                (before * 1000,),
            ).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return
            raise UserError(f"the MLflow store {file} cannot be read ({error}); repeat the command.") from None
    for (uri,) in found:
        path = Path(unquote(urlsplit(uri).path))
        if is_local(uri) and path.parent.name not in kept:
            yield Unused("record", path, _size(path))


def _of_models(layout: Layout) -> set[str]:
    """The runs of the models in models/."""
    return {run_of(file) for file in (layout.root / "models").rglob("model.json")}


def _registered() -> dict[str, str]:
    """The MLflow runs of the registered versions, by id, and the names of their folders in runs/.

    The store is that of MLFLOW_TRACKING_URI, or the project's own, if there is one.
    """
    use_local_tracking()
    if sqlite_file(os.environ["MLFLOW_TRACKING_URI"]) is not None and _local_store() is None:
        return {}
    with asking_for("the registry of models"):
        from mlflow import MlflowClient, MlflowException

        client = MlflowClient()
        ids = {version.run_id for version in client.search_model_versions("name LIKE 'rdmd-%'") if version.run_id}
        found = {}
        for run_id in ids:
            # `mlflow gc` by hand removes runs whatever came from them.
            with contextlib.suppress(MlflowException):
                found[run_id] = client.get_run(run_id).data.tags.get(_RUN_TAG, "")
    return found


def _local_store() -> Path | None:
    use_local_tracking()
    file = sqlite_file(os.environ["MLFLOW_TRACKING_URI"])
    return file if file is not None and file.is_file() else None


def _last_change(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
