"""Trainings and evaluations on a Ray cluster of two nodes of this machine, each with a folder of its own, against the
same on this machine alone."""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from rdmd import config
from rdmd.domains.preprocess import preprocess
from rdmd.errors import Interrupted, UserError
from rdmd.evaluation.row import Row
from rdmd.files import sha256_of
from rdmd.pipeline.evaluation import evaluate as evaluate_here
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.plan import plan_generator
from rdmd.pipeline.training import train_sweep, train_teacher
from rdmd.training.folder import RunFolder
from tests.conftest import ROOT, params, tiny_points

pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")

from ray.cluster_utils import Cluster

from flows.cargo import NODE_FOLDER

# Every task begins in a process that has to import torch, Prefect and Ray first.
pytestmark = pytest.mark.slow

CHECKPOINT_EVERY = 100
EVERY = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
# Ray's own patience with a silent node is made for networks.
IMPATIENT = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Nodes:
    """Two nodes with one CPU each; drivers join the first. A node's folder holds all that it ever writes for us."""

    cluster: Cluster
    first: Path
    second: Path

    def kill_second(self) -> None:
        """As when a machine loses power: everything at once, trainings too."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(NODE_FOLDER) == str(self.second):
                    process.kill()
        (node,) = self.cluster.worker_nodes
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folders = [tmp_path_factory.mktemp(f"node{i}") for i in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(shutdown_at_exit=False)
        try:
            for folder in folders:
                patch.chdir(folder)
                place = {"node_ip_address": "127.0.0.2"} if sys.platform == "linux" else {}
                first = {"_system_config": IMPATIENT} if folder is folders[0] else {}
                cluster.add_node(
                    num_cpus=1, include_dashboard=False, env_vars={NODE_FOLDER: str(folder), EVERY: "0.5"},
                    **place, **first,
                )
            yield Nodes(cluster, *folders)
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def harness() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


@dataclass(frozen=True)
class Project:
    """A project's folder, with what was made there."""

    settings: config.Settings
    layout: Layout


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Tiny swissroll, everything trained and evaluated by this machine alone."""
    project = make_project(tmp_path_factory.mktemp("here"), tiny)
    for name in ("source", "target"):
        preprocess(project.settings, name, project.layout.shards / name)
    train_teacher(project.settings, project.layout, unwatched, TrainingProcesses())
    train_sweep(project.settings, project.layout, unwatched, TrainingProcesses())
    shutil.copytree(project.layout.teacher, project.layout.baselines)  # nothing there is needed, but a folder is
    evaluate_here(project.settings, project.layout)
    return project


@pytest.fixture
def there(
    here: Project, nodes: Nodes, harness: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """The same project in another folder with the cluster to run on: shards and teacher, nothing trained with them."""

    def on_the_cluster(settings: dict) -> None:
        tiny(settings)
        settings["launch"]["runner"] = {"name": "ray", "address": nodes.cluster.address, "cpus": 1}

    project = make_project(tmp_path, on_the_cluster)
    shutil.copytree(here.layout.shards, project.layout.shards)
    shutil.copytree(here.layout.teacher, project.layout.teacher)
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
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


def weights(layout: Layout) -> dict[str, str]:
    return {file.parent.name: sha256_of(file) for file in layout.generators.glob("*/model.safetensors")}


def measured(rows: list[Row]) -> list[Row]:
    """Rows without what a clock says."""
    return [row.model_copy(update={"seconds_per_image": None, "train_seconds": None}) for row in rows]


def trainings_of(node: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in node.glob("task-*/runs/*")]


def wait_for(condition: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def test_the_evaluation_on_two_nodes_equals_that_of_one_machine(here: Project, there: Project, nodes: Nodes):
    from flows.evaluate import evaluate
    from rdmd.evaluation.metrics_file import read_metrics

    for made in ("generators", "baselines"):
        shutil.copytree(getattr(here.layout, made), getattr(there.layout, made))
    metrics = evaluate(there.settings, there.layout)
    assert len(metrics.rows) >= 4
    assert measured(metrics.rows) == measured(read_metrics(here.layout.metrics).rows)
    arrived = [{file.name for file in (node / "inputs").glob("*/*")} for node in (nodes.first, nodes.second)]
    # Every node fetched the inputs, for itself.
    assert arrived[0] == arrived[1] >= set(weights(here.layout).values())


def test_stopping_brings_the_checkpoint_home(there: Project, nodes: Nodes):
    from flows.cluster import connected
    from flows.cluster_training import ClusterSlots, ClusterTraining

    launch = there.settings.launch
    long = there.settings.distill.model_copy(update={"steps": 10**6})
    settings = there.settings.model_copy(update={"distill": long})
    runs = [plan_generator(settings, there.layout, lam, None) for lam in (0.1, 0.2, 0.3)]
    folders = [RunFolder.prepare(there.layout.runs, run) for run in runs]
    ended: list[BaseException] = []
    with connected(launch.runner) as cluster, ClusterSlots(launch, launch.runner).lend() as slot:
        training = ClusterTraining(cluster)

        def train(folder: RunFolder) -> None:
            try:
                training.train(folder, slot, lambda points: None)
            except BaseException as error:
                ended.append(error)

        # Two nodes of one CPU: the third run waits for its turn, and is to end as well.
        threads = [threading.Thread(target=train, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        wait_for(lambda: sum(bool(folder.curves()) for folder in folders) == 2, "two runs do not begin")
        training.stop_all()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert [type(error) for error in ended] == [Interrupted] * 3
    begun = [folder for folder in folders if folder.curves()]
    assert len(begun) == 2
    for folder in begun:
        assert folder.checkpoint.exists()
        assert str(folder.path) in {str(error).split(" ")[0] for error in ended}
    wait_for(lambda: not trainings_of(nodes.first) + trainings_of(nodes.second), "a training does not end")


def test_a_failure_on_a_node_is_the_runs_own_sentence(there: Project):
    from flows.workers import workers

    run = plan_generator(there.settings, there.layout, 0.05, None)
    diverging = run.settings.model_copy(update={"generator_lr": 1e30})
    folder = RunFolder.prepare(there.layout.runs, run.model_copy(update={"settings": diverging}))
    said = pytest.raises(UserError, match=f"^training in {folder.path} failed: step .* is not finite")
    with workers(there.settings.launch) as work, work.slots.lend() as slot, said:
        work.trainer.train(folder, slot, lambda points: None)
    assert folder.log.exists()
    assert folder.result() is None


def test_what_is_missing_is_told_at_once(there: Project):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.server import free_port
    from flows.workers import workers

    launch = there.settings.launch
    said = pytest.raises(UserError, match="PREFECT_API_URL")
    with temporary_settings(restore_defaults={PREFECT_API_URL}), said, workers(launch):
        pass
    nobody = launch.runner.model_copy(update={"address": f"127.0.0.1:{free_port()}"})
    begun = time.monotonic()
    with pytest.raises(UserError, match="no Ray cluster"), workers(launch.model_copy(update={"runner": nobody})):
        pass
    assert time.monotonic() - begun < 10  # Ray itself tries for minutes


def test_a_sweep_survives_the_loss_of_a_node_and_equals_that_of_one_machine(
    here: Project, there: Project, nodes: Nodes
):
    """Last in this file: one node is left afterwards."""
    from flows.distill import distill
    from flows.node_metrics import samples

    seen: dict[str, int] = {}

    def lose_a_node() -> None:
        def at_home() -> list[RunFolder]:
            away = {folder.fingerprint for folder in trainings_of(nodes.second)}
            return [folder for folder in map(RunFolder, there_runs.glob("*"))
                    if folder.fingerprint in away and folder.checkpoint.exists()]

        wait_for(lambda: at_home() and trainings_of(nodes.first), "no run on each node with a checkpoint at home")
        (lost,) = at_home()
        both = {folder.fingerprint for folder in trainings_of(nodes.first)} | {lost.fingerprint}
        seen["at once"] = len(both)
        nodes.kill_second()
        seen["finished before"] = sum(folder.result_file.exists() for folder in map(RunFolder, there_runs.glob("*")))

        def again() -> RunFolder | None:
            return next((one for one in trainings_of(nodes.first) if one.fingerprint == lost.fingerprint), None)

        wait_for(again, "the lost run is not taken up")
        steps = []
        while (folder := again()) is not None:
            with contextlib.suppress(FileNotFoundError):
                # The log begins when the checkpoint has come.
                if folder.log.exists():
                    steps.append(max((point.step for point in folder.curves()), default=0))
            time.sleep(0.02)
        seen["least step"] = min(steps)

    there_runs = there.layout.runs.resolve()
    thread = threading.Thread(target=lose_a_node)
    thread.start()
    distill(there.settings, there.layout)
    thread.join(30)
    assert seen["at once"] == 2
    assert seen["finished before"] < 2
    # It went on from the checkpoint that it had sent home rather than from its start.
    assert seen["least step"] >= CHECKPOINT_EVERY
    assert weights(there.layout) == weights(here.layout)
    assert len(weights(here.layout)) == 2
    for folder in map(RunFolder, here.layout.runs.glob("*")):
        if folder.read_run().kind == "distill":
            assert RunFolder(there.layout.runs / folder.fingerprint).curves() == folder.curves()
            pictures = (there.layout.runs / folder.fingerprint).glob("samples/*.png")
            assert {file.name for file in pictures} == {file.name for file in folder.samples.iterdir()}
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name LIKE 'rdmd/%'")
    for run in client.search_runs([experiment.experiment_id], "params.method = 'rdmd'"):
        taken = samples(RunFolder(there.layout.runs / run.data.tags["rdmd.run"]))
        recorded = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
        assert len(taken) > 1
        # Of the nodes, and nothing of the driver, which would have its own times.
        assert [(one.timestamp, one.value) for one in recorded] == [
            (one.at, one.values["cpu_utilization_percentage"]) for one in taken
        ]
        assert set(run.data.tags["nodes"].split(", ")) == {one.node for one in taken}
    with get_client(sync_client=True) as client:
        states = [run.state_name for run in client.read_task_runs() if run.name == "lambda-0.05 on the cluster"]
    assert states[-1] == "Completed"
    assert not list(nodes.first.glob("task-*"))
