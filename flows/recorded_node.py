"""What nodes of a cluster did while they trained a run, as the `system/` metrics of its MLflow run."""

from mlflow import MlflowClient
from mlflow.entities import Metric

from flows.node_metrics import samples
from flows.system_metrics import PREFIX, wanted
from rdmd.training.folder import RunFolder

NODES = "nodes"


class NodeRecorder:
    """Sends the samples in a run's folder to one MLflow run, each once: those that are newer than what it has."""

    def __init__(self, client: MlflowClient, run_id: str, folder: RunFolder) -> None:
        self._client, self._run_id, self._folder = client, run_id, folder
        run = client.get_run(run_id)
        self._nodes = set(filter(None, run.data.tags.get(NODES, "").split(", ")))
        names = [name for name in run.data.metrics if name.startswith(PREFIX)]
        known = [metric for name in names for metric in client.get_metric_history(run_id, name)]
        self._last = max((metric.timestamp for metric in known), default=0)
        self._step = max((metric.step + 1 for metric in known), default=0)

    def record(self) -> None:
        """Send what is new, and name the nodes in the run's tag `nodes`."""
        new = [sample for sample in samples(self._folder) if sample.at > self._last] if wanted() else []
        for sample in new:
            metrics = [Metric(PREFIX + name, value, sample.at, self._step) for name, value in sample.values.items()]
            self._client.log_batch(self._run_id, metrics=metrics)
            self._last, self._step = sample.at, self._step + 1
        seen = self._nodes | {sample.node for sample in new}
        if seen != self._nodes:
            self._nodes = seen
            self._client.set_tag(self._run_id, NODES, ", ".join(sorted(seen)))
