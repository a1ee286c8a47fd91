"""MLflow's store, asked for models. An SQLite file is looked at before MLflow does, which retries a damaged one for
minutes."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from rdmd.errors import UserError

SCHEME = "sqlite:///"


def sqlite_file(uri: str) -> Path | None:
    """The file of a store that is an SQLite file; None for any other store."""
    return Path(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None


def check_sqlite(uri: str) -> None:
    """Raises UserError if `uri` names an SQLite file and what lies there is none, or is damaged."""
    file = sqlite_file(uri)
    if file is None or not file.exists():
        return
    remedy = "move it aside, or correct MLFLOW_TRACKING_URI"
    if not file.is_file():
        raise UserError(f"the MLflow store {file} is not a file; {remedy}.")
    try:
        with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as store:
            store.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # Such as a lock that another process holds: MLflow waits for it.
        return
    except sqlite3.DatabaseError as error:
        raise UserError(f"the MLflow store {file} cannot be used ({error}); {remedy}.") from None


@contextlib.contextmanager
def asking_for(uri: str) -> Iterator[None]:
    """For a block that asks MLflow for the model `uri`. Raises UserError if the store cannot be used or has no such
    model."""
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UserError(f"{uri} needs the package mlflow, which is missing here; give a folder instead.") from None
    store = mlflow.get_tracking_uri()
    check_sqlite(store)
    file = sqlite_file(store)
    if file is not None and not file.exists():
        raise UserError(f"{uri}: {file} does not exist, so nothing is registered there; run `make repro` first, or "
                        "correct MLFLOW_TRACKING_URI.")
    try:
        yield
    except MlflowException as error:
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{uri} cannot be fetched from {store} ({first}); list what is registered with `rdmd summary`, "
                        "or correct MLFLOW_TRACKING_URI.") from error


def check_registered(uri: str) -> None:
    """Raises UserError if MLflow does not know the model `uri`."""
    with asking_for(uri):
        import mlflow

        mlflow.models.get_model_info(uri)
