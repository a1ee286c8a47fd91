"""A team without a shared disk: a worker in one clone, and colleagues' clones that get what it made by git, a DVC
remote and MLflow's server alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import API, answers, free_port, prefect_server
from rdmd.files import sha256_of
from tests.conftest import ROOT, mlflow_server, params, tiny_points

# Three clones, two servers and two runs of the pipeline take minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PIPELINE = (
    "rdmd",
    "flows",
    "mlflow",
    "experiments",
    "dvc.yaml",
    "prefect.yaml",
    "prefect.toml",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
)
LAMBDAS = [0.1, 0.4]
SEED = 1
MODEL = "rdmd-swissroll"


@dataclass(frozen=True)
class Clone:
    """A git clone, and the environment of its machine: the addresses of the servers and no path of another clone."""

    path: Path
    environment: dict[str, str]

    def run(self, *command: str, status: int = 0) -> str:
        said = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert said.returncode == status, said.stdout[-3000:]
        return said.stdout

    def weights(self) -> dict[str, str]:
        return {file.parent.name: sha256_of(file) for file in self.path.glob("models/generators/*/model.safetensors")}


@dataclass(frozen=True)
class Team:
    """What all share: the repository that everybody clones, the addresses of the servers, and the DVC remote."""

    root: Path
    environment: dict[str, str]

    def clone(self, name: str) -> Clone:
        path = self.root / name
        git(self.root, "clone", "-q", "origin", name)
        home = {"PREFECT_HOME": str(self.root / f"{name}-prefect"), "HOME": str(self.root / f"{name}-home")}
        (self.root / f"{name}-home").mkdir()
        return Clone(path, self.environment | home | {"PYTHONPATH": str(path)})


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    root = tmp_path_factory.mktemp("team").resolve()
    make_origin(root / "origin", remote=root / "remote")
    with ExitStack() as stack:
        environment = stack.enter_context(prefect_server()).environment
        store = f"sqlite:///{root}/mlflow.db"
        uri = stack.enter_context(mlflow_server(store, free_port(), root / "artifacts"))
        until(lambda: answers(f"{environment[API]}/health"), 300, "Prefect's server is not up")
        dropped = {"MLFLOW_TRACKING_URI", "PREFECT_HOME", "DVC_ROOT", "DVC_STAGE", "RDMD_PREFECT_SERVER_STARTING"}
        kept = {key: value for key, value in environment.items() if key not in dropped}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        stack.enter_context(temporary_settings({PREFECT_API_URL: environment[API]}))
        yield Team(root, kept | {"MLFLOW_TRACKING_URI": uri, "PATH": path})


def make_origin(path: Path, remote: Path) -> None:
    """The repository with tiny swissroll settings and a DVC remote in its configuration."""
    for name in PIPELINE:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__", "store"))
        else:
            shutil.copy(ROOT / name, path / name)
    (path / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    git(path, "init", "-q")
    add_remote = [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "team", str(remote)]
    subprocess.run(add_remote, cwd=path, check=True)
    git(path, "add", "-A")
    git(path, "commit", "-qm", "The project")


def git(folder: Path, *command: str) -> None:
    subprocess.run(["git", "-c", "user.name=Test", "-c", "user.email=test@localhost", *command], cwd=folder, check=True)


def until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


@dataclass(frozen=True)
class Made:
    """What a worker's run left where others find it; its clone is gone."""

    weights: dict[str, str]
    pushed: str


@pytest.fixture(scope="module")
def made(team: Team) -> Made:
    """One run with changed values by a worker, started from elsewhere; then its machine is lost with its disk."""
    machine = team.clone("machine")
    with get_client(sync_client=True) as client, (team.root / "worker.log").open("wb") as log:
        machine.run("prefect", "work-pool", "create", "rdmd", "--type", "process")
        machine.run("prefect", "--no-prompt", "deploy", "--all")
        worker = subprocess.Popen(
            ["prefect", "worker", "start", "--pool", "rdmd", "--limit", "1"],
            cwd=machine.path,
            stdout=log,
            stderr=log,
            env=machine.environment,
            start_new_session=True,
        )
        try:
            said = run_by_the_team(client)
        finally:
            # The machine is lost, with whatever its worker would still have done.
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(60)
    weights = machine.weights()
    shutil.rmtree(machine.path)
    return Made(weights, said)


def run_by_the_team(client: SyncPrefectClient) -> str:
    """A run of `reproduce/team` to its end; gives what its pushing said."""
    deployment = client.read_deployment_by_name("reproduce/team")
    changes = {"lambdas": LAMBDAS, "seed": SEED}
    run = client.create_flow_run_from_deployment(deployment.id, parameters={"changes": changes}).id
    until(lambda: client.read_flow_run(run).state.is_final(), 900, "the run does not end")
    ended = client.read_flow_run(run)
    assert ended.state_name == "Completed", ended.state.message
    lines: list[str] = []

    def logged() -> list[str]:
        lines[:] = [one.message for one in client.read_logs(limit=200) if one.flow_run_id == run]
        return [line for line in lines if "pushed" in line]

    until(logged, 30, f"nothing was pushed: {lines}")
    return logged()[-1]


def test_the_worker_trains_pushes_and_registers(team: Team, made: Made):
    assert set(made.weights) == {f"lambda-{lam:g}" for lam in LAMBDAS}
    assert "files pushed" in made.pushed
    client = mlflow.MlflowClient(team.environment["MLFLOW_TRACKING_URI"])
    registered = {one.tags["sha256"] for one in client.search_model_versions(f"name = '{MODEL}'")}
    assert registered
    assert registered <= set(made.weights.values())
    experiment = client.get_experiment_by_name("rdmd/swissroll")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")


def test_another_clone_gets_the_run_from_the_remote_and_trains_nothing(team: Team, made: Made):
    laptop = team.clone("laptop")
    settings = yaml.safe_load((laptop.path / "params.yaml").read_text(encoding="utf-8"))
    settings |= {"seed": SEED, "distill": settings["distill"] | {"lambdas": LAMBDAS}}
    (laptop.path / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    laptop.run("dvc", "repro", "--pull")
    assert not (laptop.path / "runs").exists()
    assert laptop.weights() == made.weights
    assert (laptop.path / "reports" / "metrics.json").exists()
    # Its lock committed, a third has all of it by `dvc pull` alone.
    git(laptop.path, "add", "-A")
    git(laptop.path, "commit", "-qm", "What the worker made")
    git(laptop.path, "push", "-q", "origin", "HEAD:shared")
    laptop.run("dvc", "push", "--run-cache")
    third = team.clone("third")
    git(third.path, "checkout", "-q", "shared")
    third.run("dvc", "pull")
    assert "up to date" in third.run("dvc", "repro")
    assert third.weights() == made.weights


def test_the_champion_is_used_by_its_name_alone(team: Team, made: Made):
    anywhere = team.clone("anywhere")
    np.save(anywhere.path / "points.npy", np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32))
    anywhere.run("rdmd", "translate", f"models:/{MODEL}@champion", "points.npy", "translated.npy")
    translated = np.load(anywhere.path / "translated.npy")
    assert translated.shape == (64, 2)
    assert np.isfinite(translated).all()
    assert "champion" in anywhere.run("rdmd", "registry", "list")
