"""What a node of a cluster does, in a real MLflow store: each sample once, however often the run is resumed."""

import time
from pathlib import Path

import mlflow
import pytest

from flows.node_metrics import NodeMetrics, samples
from flows.recorded_node import NodeRecorder
from rdmd.training.folder import RunFolder

EVERY = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
WANTED = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


def taken(folder: RunFolder, node: str, count: int) -> None:
    """Samples of this machine under a node's name."""
    metrics = NodeMetrics(folder, node)
    before = len(samples(folder))
    while len(samples(folder)) < before + count:
        metrics.sample_if_due()
        time.sleep(0.01)


def test_samples_of_two_nodes_are_recorded_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(EVERY, "0.05")
    monkeypatch.delenv(WANTED, raising=False)
    folder = RunFolder(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("rdmd/tiny")).info.run_id

    def history() -> list[tuple[int, float, int]]:
        recorded = client.get_metric_history(run, "system/cpu_utilization_percentage")
        return [(one.timestamp, one.value, one.step) for one in recorded]

    NodeRecorder(client, run, folder).record()
    assert history() == [], "nothing was sent yet"
    taken(folder, "10.0.0.1", 2)
    recorder = NodeRecorder(client, run, folder)
    recorder.record()
    recorder.record()
    # The node is lost; another takes up the run, and the driver begins anew.
    taken(folder, "10.0.0.2", 1)
    NodeRecorder(client, run, folder).record()
    expected = [(one.at, one.values["cpu_utilization_percentage"], i) for i, one in enumerate(samples(folder))]
    assert history() == expected
    assert len(expected) == 3
    known = client.get_run(run).data
    assert {"system/system_memory_usage_megabytes", "system/disk_usage_percentage"} <= set(known.metrics)
    assert known.tags["nodes"] == "10.0.0.1, 10.0.0.2"


def test_the_drivers_switch_leaves_them_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(EVERY, "0.05")
    monkeypatch.setenv(WANTED, "false")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("rdmd/tiny")).info.run_id
    taken(RunFolder(tmp_path), "10.0.0.1", 1)
    NodeRecorder(client, run, RunFolder(tmp_path)).record()
    assert client.get_run(run).data.metrics == {}
