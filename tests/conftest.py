"""Fixtures that several test files share: tiny experiments, and a project folder to run them in."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml

# Tests leave the user's servers and histories alone. This comes before Prefect and MLflow read their settings.
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="rdmd-test-prefect-")
# Or each of the many processes that tests start compiles rdmd and flows anew, which takes up to a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from flows import environment  # noqa: E402, F401 (the rest of that environment)
from flows.server import answers, running  # noqa: E402

ROOT = Path(__file__).parents[1]
Change = Callable[[dict], None]

# Runs are compared bit for bit, and tests run beside each other: one thread for each.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def params(experiment: str, change: Change) -> str:
    """The text of a shipped experiment with some settings changed."""
    settings = yaml.safe_load((ROOT / "experiments" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    change(settings)
    return yaml.safe_dump(settings, sort_keys=False)


def notebook_of(name: str) -> nbformat.NotebookNode:
    """A notebook of examples/, with a few steps of training and few images."""
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"(TEACHER_STEPS, DISTILL_STEPS, COUNT) = .*", r"\1 = 4, 4, 100", cell.source)
        # FID needs 50 of them.
        cell.source = cell.source.replace('"unseen", 200)', '"unseen", 60)')
    return notebook


def tiny_points(settings: dict) -> None:
    """Swissroll in seconds: few points, a small network, few steps."""
    for name in ("source", "target"):
        settings["domains"][name] |= {"train": 2000, "test": 1000}
    settings["validation"] = {"min_train": 100, "min_test": 100}
    settings["network"] |= {"width": 32}
    settings["teacher"] |= {"steps": 60, "checkpoint_every": 20, "log_every": 10, "sample_every": 30}
    settings["distill"] |= {
        "lambdas": [0.05, 0.5],
        "steps": 40,
        "checkpoint_every": 10,
        "log_every": 10,
        "sample_every": 20,
    }
    settings["evaluate"] |= {"n_source": 300, "n_reference": 300, "n_transport": 200, "projections": 32}
    settings["baselines"] = {"sdedit": {"sigmas": [1.0], "steps": 4}}


def tiny_digits(settings: dict) -> None:
    """Digits in a minute: one copy a scan, a thin network, few steps."""
    for domain in settings["domains"].values():
        domain |= {"train_copies": 2, "test_copies": 2}
    settings["validation"] = {"min_train": 50, "min_test": 20}
    settings["network"] |= {"model_channels": 8}
    settings["teacher"] |= {"steps": 40, "checkpoint_every": 20, "sample_every": 20}
    settings["distill"] |= {"lambdas": [0.05, 0.5], "steps": 30, "checkpoint_every": 5, "sample_every": 15}
    settings["evaluate"] |= {"n_source": 64, "n_reference": 70, "bootstrap": 20}
    settings["evaluate"]["features"] |= {"steps": 40, "dim": 16}
    settings["baselines"] = {"sdedit": {"sigmas": [1.0], "steps": 3}}


def trained_baselines(settings: dict) -> None:
    """The baselines that train something, in a few steps each."""
    cadence = {"steps": 10, "batch": 16, "checkpoint_every": 5, "log_every": 5, "sample_every": 10}
    settings["baselines"] |= {
        "egsde": {
            "sigmas": [0.5, 2.0], "repel": [0.0, 10.0], "attract": [1.0], "factor": 2, "steps": 3,
            "classifier": dict(cadence),
        },
        "ddib": {"steps": [2, 3]},
        "neural_ot": {"cost_weights": [0.5], "map_steps": 2, "r1": 0.1} | cadence,
    }  # fmt: skip
    if settings["preprocess"]["kind"] == "images":
        settings["baselines"]["cut"] = {"nce_weights": [0.5], "patches": 16, "embedding": 16} | cadence


def fresh_store(file: Path) -> str:
    """An empty MLflow store in SQLite; its address. A process makes the schema once, which takes seconds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_empty_store(), file)
    return f"sqlite:///{file}"


@cache
def _empty_store() -> Path:
    from mlflow import MlflowClient

    file = Path(tempfile.mkdtemp(prefix="rdmd-test-mlflow-")) / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_registered_models()
    return file


@contextmanager
def mlflow_server(store: str, port: int, artifacts: Path) -> Iterator[str]:
    """The address of an MLflow server that answers."""
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store, "--artifacts-destination", str(artifacts),
    ]  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    with running(command, subprocess.DEVNULL):
        deadline = time.monotonic() + 300
        while not answers(f"{uri}/health"):
            assert time.monotonic() < deadline, "MLflow's server does not start"
            time.sleep(0.2)
        yield uri


@pytest.fixture
def points_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny swissroll settings and what its `path` keys name, which is also the current folder."""
    (tmp_path / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    for name in ("rdmd", "flows", "mlflow", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
