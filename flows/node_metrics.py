"""What a node of a cluster does while it trains a run: the run's `system/` metrics, taken where it trains, in a file of
its folder, by which they come to the driver."""

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

from flows.system_metrics import SAMPLING_SECONDS
from rdmd.training.folder import RunFolder


@dataclass(frozen=True)
class Sample:
    """One look at a node: when (milliseconds since 1970), the node's address, and its numbers by MLflow's names."""

    at: int
    node: str
    values: dict[str, float]


def samples_file(folder: RunFolder) -> Path:
    """A line for each sample, of all nodes that the run was on, in the order that they were taken."""
    return folder.path / "system.jsonl"


def samples(folder: RunFolder) -> list[Sample]:
    """What has come so far."""
    try:
        lines = samples_file(folder).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Sample(**json.loads(line)) for line in lines]


class NodeMetrics:
    """Takes a sample of this node for a run whenever one is due. MLflow's switch is for the driver to heed."""

    def __init__(self, folder: RunFolder, node: str) -> None:
        self._file, self._node = samples_file(folder), node
        self._every = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SAMPLING_SECONDS
        self._next = time.monotonic() + self._every
        self._monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        for gpus in (GPUMonitor, ROCMMonitor):
            # As MLflow itself does where a driver or its package is missing.
            with contextlib.suppress(Exception):
                self._monitors.append(gpus())
                break

    def sample_if_due(self) -> None:
        """Add a line to the run's file if the last is old enough."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": int(time.time() * 1000), "node": self._node, "values": values}) + "\n")
