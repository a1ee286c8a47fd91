"""Checks of MLflow's store: whether it can be used, and whether it holds the registered models.

An SQLite file is read without MLflow, which takes seconds to import and retries a damaged file for minutes.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rdmd.errors import UserError
from rdmd.pipeline.layout import use_local_tracking

SCHEME = "sqlite:///"
WEIGHTS = "model.safetensors"
# The tables and columns of MLflow's SQLite schema that hold absolute paths of artifacts.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def sqlite_file(uri: str) -> Path | None:
    """The SQLite file of a store; None for any other store."""
    return Path(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None


def check_sqlite(uri: str) -> None:
    """Raises UserError if the SQLite file that `uri` names is damaged or is no SQLite file."""
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


def relocate(uri: str) -> None:
    """Correct the paths in this checkout's own store, if the checkout was moved or copied.

    MLflow keeps absolute paths, so a copy would read and write the artifacts of the original. Other stores are not
    changed. Raises UserError if the store cannot be changed.
    """
    file = sqlite_file(uri)
    if file is None or not file.is_file() or file.resolve() != Path.cwd().resolve() / "mlflow" / "store" / "mlflow.db":
        return
    here = (file.resolve().parent / "artifacts").as_uri()
    try:
        with contextlib.closing(sqlite3.connect(file)) as store, store:
            if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
                return
            elsewhere = store.execute(
                "SELECT DISTINCT artifact_location FROM experiments WHERE name LIKE 'rdmd/%' "
                "AND artifact_location <> ? AND artifact_location LIKE 'file:%/mlflow/store/artifacts'", (here,)
            ).fetchall()  # fmt: skip
            for (there,) in elsewhere:
                for table, column in LOCATIONS:
                    store.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? "
                        f"OR substr({column}, 1, ?) = ?",
                        (here, len(there) + 1, there, len(there) + 1, f"{there}/"),
                    )
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise UserError(
                f"the MLflow store {file} is locked by another process; end that process or wait for it, and repeat "
                "the command."
            ) from None
        raise UserError(
            f"the MLflow store {file} was moved here, and its paths cannot be corrected ({error}); end "
            "what uses it, make it writable, or move it aside."
        ) from None


def unregistered(registry: Path) -> str | None:
    """Why the store of MLFLOW_TRACKING_URI lacks models of the file `registry` (reports/registry.json); None if it has
    them all with their weights, or if the file lists none.

    The file is in git, and the store is not. Raises UserError if the store cannot be used.
    """
    try:
        registered = json.loads(registry.read_text(encoding="utf-8"))
        name, champion = registered["name"], registered["champion"]
        wanted = {(entry["sha256"], f"{entry['lambda']:g}") for entry in registered["versions"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if champion is None:
        return None
    use_local_tracking()
    uri = os.environ["MLFLOW_TRACKING_URI"]
    check_sqlite(uri)
    relocate(uri)
    held, has_champion = _held_in_file(uri, name) if sqlite_file(uri) is not None else _held_on_server(champion, name)
    missing = sorted(lam for sha256, lam in wanted - set(held))
    if missing:
        return f"{uri} holds no version of {name} with lambda {', '.join(missing)}"
    lost = sorted(key[1] for key in wanted if not has_weights(held[key]))
    if lost:
        return f"the weights of {name} with lambda {', '.join(lost)} are gone from {uri}"
    return None if has_champion else f"{name} has no champion in {uri}"


# The location of the newest version of each (SHA-256 of weights, lambda): a folder, or an address models:/NAME/VERSION.
_Held = dict[tuple[str, str], str]


def _held_in_file(uri: str, name: str) -> tuple[_Held, bool]:
    """What the store holds, and whether there is a champion."""
    file = sqlite_file(uri)
    if file is None or not file.is_file():
        return {}, False
    with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as store:
        try:
            versions = store.execute(
                "SELECT weights.value, lambdas.value, coalesce(storage_location, source) FROM model_versions "
                "JOIN model_version_tags AS weights USING (name, version) "
                "JOIN model_version_tags AS lambdas USING (name, version) "
                "WHERE name = ? AND weights.key = 'sha256' AND lambdas.key = 'lambda' "
                "AND current_stage <> 'Deleted_Internal' ORDER BY version", (name,)
            ).fetchall()  # fmt: skip
            champion = store.execute(
                "SELECT 1 FROM registered_model_aliases WHERE name = ? AND alias = 'champion'", (name,)
            ).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return {}, False
            raise UserError(f"the MLflow store {file} cannot be read ({error}); repeat the command.") from None
    return {(sha256, lam): location for sha256, lam, location in versions}, champion is not None


def _held_on_server(champion: str, name: str) -> tuple[_Held, bool]:
    with asking_for(champion):
        from mlflow import MlflowClient

        client = MlflowClient()
        versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
        aliases = client.get_registered_model(name).aliases if versions else {}
    tagged = [version for version in versions if {"sha256", "lambda"} <= set(version.tags)]
    held = {(one.tags["sha256"], one.tags["lambda"]): f"models:/{name}/{one.version}" for one in tagged}
    return held, "champion" in aliases


def has_weights(location: str) -> bool:
    """Whether the weights of a model are in a local folder of artifacts, or at an address models:/NAME/VERSION of a
    server. Raises UserError if the server does not answer.
    """
    if is_local(location):
        return weights_of(location) is not None
    with asking_for(location):
        import mlflow

        files = mlflow.artifacts.list_artifacts(artifact_uri=f"{location}/artifacts/model")
    return any(Path(file.path).name == WEIGHTS and file.file_size for file in files)


def weights_of(location: str) -> Path | None:
    """The weights file of the model, not of its codec, below a local folder of artifacts (a path or a file: URI); None
    if there is none."""
    parts = urlsplit(location)
    folder = Path(unquote(parts.path)) if parts.scheme == "file" else Path(location)
    found = sorted(folder.rglob(WEIGHTS))
    return found[0] if found and found[0].stat().st_size else None


def is_local(location: str) -> bool:
    """Whether artifacts are in a folder of this machine."""
    return location.startswith(("file:", "/"))


@contextlib.contextmanager
def asking_for(uri: str) -> Iterator[None]:
    """Around a block that asks MLflow for the model `uri`: raises UserError if the store cannot be used or lacks it."""
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UserError(
            f"{uri} needs the package mlflow, which is missing here; install it with `pip install 'rdmd[pipeline]'`, "
            "or give a folder instead."
        ) from None
    store = mlflow.get_tracking_uri()
    check_sqlite(store)
    relocate(store)
    file = sqlite_file(store)
    if file is not None and not file.exists():
        raise UserError(
            f"{uri}: {file} does not exist, so nothing is registered there; run `make repro` first, or "
            "correct MLFLOW_TRACKING_URI."
        )
    try:
        yield
    except MlflowException as error:
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{uri} cannot be fetched from {store} ({first}); list what is registered with `rdmd registry list`, "
            "register this checkout's generators with `make repro`, or correct MLFLOW_TRACKING_URI."
        ) from error


def without_alias(uri: str) -> str:
    """The address of a model in MLflow, `models:/NAME@alias` as the `models:/NAME/VERSION` that it names now.

    Raises UserError if MLflow does not know the model.
    """
    with asking_for(uri):
        import mlflow

        name, _, alias = uri.removeprefix("models:/").partition("@")
        if alias and uri.startswith("models:/"):
            uri = f"models:/{name}/{mlflow.MlflowClient().get_model_version_by_alias(name, alias).version}"
        mlflow.models.get_model_info(uri)
        return uri
