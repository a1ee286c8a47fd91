"""Trainings and evaluations on a Ray cluster of two nodes of this machine, which share the project's folder, compared
with the same on this machine alone."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings
from prefect.testing.utilities import prefect_test_harness

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.errors import UserError
from rdmd.evaluation.row import Row
from rdmd.files import sha256_of
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import train_generators, train_teacher
from rdmd.training.run_folder import RunFolder
from tests.conftest import ROOT, fresh_store, params, tiny_points
from tests.in_process import InThisProcess

pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")

from ray.cluster_utils import Cluster

CHECKPOINT_EVERY = 100
NODE = "RDMD_TEST_NODE"
# A dead node refuses the connection, which Ray is to notice soon; a slow one keeps Ray's own patience.
IMPATIENT = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3,
}  # fmt: skip


class Nodes:
    """Two nodes with one CPU each; drivers join the first."""

    def __init__(self) -> None:
        self.cluster = Cluster(shutdown_at_exit=False)
        self._add("first", _system_config=IMPATIENT)
        self.complete()

    def complete(self) -> None:
        """Start the second node where it is missing."""
        if not self.cluster.worker_nodes:
            self._add("second")

    def _add(self, name: str, **options: object) -> None:
        place = {"node_ip_address": "127.0.0.2"} if sys.platform == "linux" else {}
        self.cluster.add_node(num_cpus=1, include_dashboard=False, env_vars={NODE: name}, **place, **options)

    def kill_second(self, trainings: bool) -> None:
        """Kill the node with all its processes, as when it loses power; with its training or without."""
        for process in self.processes("second"):
            with contextlib.suppress(psutil.Error):
                if trainings or "rdmd.training.run" not in process.cmdline():
                    process.kill()
        (node,) = self.cluster.worker_nodes
        self.cluster.remove_node(node, allow_graceful=False)

    def trains(self, name: str) -> set[str]:
        """The fingerprints of the runs that a node trains now."""
        found = set()
        for process in self.processes(name):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if "rdmd.training.run" in words:
                    found.add(Path(words[words.index("rdmd.training.run") + 1]).name)
        return found

    @staticmethod
    def processes(name: str) -> Iterator[psutil.Process]:
        """All that a node started."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(NODE) == name:
                    yield process


@pytest.fixture(scope="module")
def both_nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        nodes = Nodes()
        try:
            yield nodes
        finally:
            nodes.cluster.shutdown()


@pytest.fixture
def nodes(both_nodes: Nodes) -> Nodes:
    both_nodes.complete()
    return both_nodes


@pytest.fixture(scope="module")
def harness() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=300):
        yield


@dataclass(frozen=True)
class Project:
    """A project's folder, with what was made there."""

    settings: config.Settings
    layout: Layout


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Tiny swissroll, its teacher and a generator trained by this machine alone."""
    project = make_project(tmp_path_factory.mktemp("here"), tiny)
    for name in ("source", "target"):
        preprocess(project.settings, name, project.layout.shards / name)
    train_teacher(project.settings, project.layout, unwatched, InThisProcess())
    train_generators(first_lambda(project.settings), project.layout, unwatched, InThisProcess())
    return project


@pytest.fixture(scope="module")
def swept(here: Project) -> Project:
    """The same with every generator."""
    train_generators(here.settings, here.layout, unwatched, InThisProcess())
    return here


def first_lambda(settings: config.Settings) -> config.Settings:
    distill = settings.distill.model_copy(update={"lambdas": [0.05]})
    return settings.model_copy(update={"distill": distill})


@pytest.fixture
def there(
    here: Project, nodes: Nodes, harness: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """The same project in another folder with the cluster to run on: shards and teacher, nothing trained with them."""

    def on_the_cluster(settings: dict) -> None:
        tiny(settings)
        settings["launch"]["runner"] = {"name": "ray", "address": nodes.cluster.address}

    project = make_project(tmp_path, on_the_cluster)
    shutil.copytree(here.layout.shards, project.layout.shards)
    shutil.copytree(here.layout.teacher, project.layout.teacher)
    monkeypatch.chdir(tmp_path)
    uri = fresh_store(tmp_path / "store" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.3")
    mlflow.set_tracking_uri(uri)
    yield Project(project.settings, Layout())
    mlflow.set_tracking_uri(None)


def tiny(settings: dict) -> None:
    tiny_points(settings)
    settings["distill"] |= {"steps": 2000, "checkpoint_every": CHECKPOINT_EVERY, "sample_every": 1000}
    settings["launch"] = {"device": "cpu", "threads": 1}


def make_project(folder: Path, change: Callable[[dict], None]) -> Project:
    for name in ("rdmd", "flows", "mlflow"):
        (folder / name).symlink_to(ROOT / name)
    return Project(config.parse(params("swissroll", change), "params.yaml"), Layout(folder))


@contextlib.contextmanager
def unwatched(folder: RunFolder, run: object) -> Iterator[Callable[[list], None]]:
    yield lambda points: None


def launched(project: Project, **changes: object) -> config.Settings:
    launch = project.settings.launch
    return project.settings.model_copy(update={"launch": launch.model_copy(update=changes)})


def weights(layout: Layout) -> dict[str, str]:
    return {file.parent.name: sha256_of(file) for file in layout.generators.glob("*/model.safetensors")}


def wait_for(condition: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def test_a_training_on_a_node_is_that_of_this_machine_in_the_same_folder(here: Project, there: Project):
    from flows.stages.training import distill

    (fingerprint,) = distill(first_lambda(there.settings), there.layout)
    assert weights(there.layout) == {"lambda-0.05": weights(here.layout)["lambda-0.05"]}
    folder = RunFolder(there.layout.runs / fingerprint)
    assert folder.curves() == RunFolder(here.layout.runs / fingerprint).curves()
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name LIKE 'rdmd/%'")
    (run,) = client.search_runs([experiment.experiment_id], "params.method = 'rdmd'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["rdmd.run"] == fingerprint
    assert {"train/cost", "system/cpu_utilization_percentage"} <= set(run.data.metrics)
    with get_client(sync_client=True) as client:
        (task,) = [one for one in client.read_task_runs() if one.name == "train generator, lambda 0.05"]
    assert task.state_name == "Completed"
    assert not list(there.layout.runs.glob(".flow-*"))


def test_what_is_missing_is_told_at_once(there: Project, tmp_path_factory: pytest.TempPathFactory):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.server import free_port
    from flows.stages.training import distill

    runner = there.settings.launch.runner
    said = pytest.raises(UserError, match="Prefect, but they cannot reach any server")
    from flows.backends import backend

    with temporary_settings(restore_defaults={PREFECT_API_URL}), said, backend(there.settings, there.layout):
        pass
    with pytest.raises(UserError, match="needs 64 CPUs"):
        distill(launched(there, threads=64), there.layout)
    with pytest.raises(UserError, match="no node of the cluster has a GPU"):
        distill(launched(there, device="cuda"), there.layout)
    nobody = runner.model_copy(update={"address": f"127.0.0.1:{free_port()}"})
    begun = time.monotonic()
    with pytest.raises(UserError, match="no Ray cluster"):
        distill(launched(there, runner=nobody), there.layout)
    assert time.monotonic() - begun < 60  # Ray itself tries for minutes
    # Another checkout, as where the folder is not mounted.
    other = make_project(tmp_path_factory.mktemp("other"), tiny).layout.root
    with pytest.raises(UserError, match=f"does not see the project at {other}; mount"):
        distill(launched(there, runner=runner.model_copy(update={"project": other})), there.layout)


def test_a_failure_on_a_node_is_the_runs_own_sentence(there: Project):
    from flows.stages.training import distill

    diverging = there.settings.distill.model_copy(update={"generator_lr": 1e30, "lambdas": [0.05]})
    with pytest.raises(UserError, match=r"^training in runs/\w+ failed: step .* is not finite"):
        distill(there.settings.model_copy(update={"distill": diverging}), there.layout)


@pytest.mark.slow
def test_the_evaluation_on_two_nodes_equals_that_of_one_machine(swept: Project, there: Project):
    from flows.stages.evaluate import evaluate

    def measured(rows: list[Row]) -> list[Row]:
        """Rows without what a clock says."""
        return [row.model_copy(update={"seconds_per_image": None, "train_seconds": None}) for row in rows]

    shutil.copytree(swept.layout.generators, there.layout.generators)
    on_ray = evaluate(there.settings, there.layout)
    assert len(on_ray.rows) >= 4
    alone = evaluate(launched(there, runner=config.LocalRunner(name="local")), there.layout)
    assert measured(on_ray.rows) == measured(alone.rows)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status", "recorded"), [
    (signal.SIGINT, 130, "KILLED"), (signal.SIGKILL, -signal.SIGKILL, "RUNNING"),
], ids=["Ctrl-C", "kill -9"])  # fmt: skip
def test_no_training_outlives_the_driver_and_checkpoints_stay(
    how: signal.Signals, status: int, recorded: str, there: Project, nodes: Nodes
):
    changed = {"steps": 10**6, "lambdas": [0.1, 0.2, 0.3]}
    long = there.settings.model_copy(update={"distill": there.settings.distill.model_copy(update=changed)})
    text = yaml.safe_dump(long.model_dump(mode="json", by_alias=True, exclude_unset=True))
    Path("params.yaml").write_text(text, encoding="utf-8")

    def begun() -> list[RunFolder]:
        return [folder for folder in map(RunFolder, there.layout.runs.glob("[!.]*")) if folder.curves()]

    environment = os.environ | {"PREFECT_API_URL": get_current_settings().api.url}
    with subprocess.Popen(
        [sys.executable, "-m", "flows.stages.training", "distill"], env=environment, stderr=subprocess.PIPE
    ) as flow:
        # Two nodes of one CPU: the third run waits for its turn, and is to end as well.
        wait_for(lambda: flow.poll() is not None or len(begun()) == 2, "two runs do not begin")
        if how == signal.SIGKILL:
            # Ray then kills the trainings too, before they write one.
            wait_for(lambda: all(folder.checkpoint.exists() for folder in begun()), "no checkpoint is written")
        flow.send_signal(how)
        _, said = flow.communicate(timeout=60)
    assert flow.returncode == status, said.decode()
    assert len(begun()) == 2
    for folder in begun():
        with folder.locked(30.0):
            assert folder.checkpoint.exists()
    wait_for(lambda: nodes.trains("first") == nodes.trains("second") == set(), "a training does not end")
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name LIKE 'rdmd/%'")
    runs = client.search_runs([experiment.experiment_id], "params.method = 'rdmd'")
    assert [run.info.status for run in runs] == [recorded] * 2


@pytest.mark.slow
@pytest.mark.parametrize("trainings", [True, False], ids=["with its trainings", "with a training that lives on"])
def test_a_sweep_survives_the_loss_of_a_node(trainings: bool, swept: Project, there: Project, nodes: Nodes):
    from flows.stages.training import distill

    seen: dict[str, object] = {}

    def lose_a_node() -> None:
        def well_on() -> list[RunFolder]:
            away = [RunFolder(there_runs / name) for name in nodes.trains("second")]
            return [folder for folder in away if folder.checkpoint.exists()]

        wait_for(lambda: well_on() and nodes.trains("first"), "no run with a checkpoint on each node")
        (lost,) = well_on()
        nodes.kill_second(trainings)
        seen["step"] = max(point.step for point in lost.curves())
        seen["unfinished"] = not lost.result_file.exists()
        wait_for(lambda: lost.fingerprint in nodes.trains("first"), "the lost run is not taken up")
        seen["least step"] = max(point.step for point in lost.curves())

    there_runs = there.layout.runs.resolve()
    thread = threading.Thread(target=lose_a_node)
    thread.start()
    distill(there.settings, there.layout)
    thread.join(30)
    assert seen["unfinished"]
    assert seen["least step"] >= CHECKPOINT_EVERY
    assert weights(there.layout) == weights(swept.layout)
    assert len(weights(swept.layout)) == 2
    for folder in map(RunFolder, swept.layout.runs.glob("*")):
        # A training that lives on for a moment logs a point of its own where it stops.
        if trainings and folder.read_run().kind == "distill":
            assert RunFolder(there.layout.runs / folder.fingerprint).curves() == folder.curves()
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name LIKE 'rdmd/%'")
    runs = client.search_runs([experiment.experiment_id], "params.method = 'rdmd'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    for run in runs:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/cost")]
        assert steps == sorted(set(steps)), "a point is recorded once"
