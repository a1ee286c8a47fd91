"""What the machine does while a run trains: CPU, memory, disk, network, and GPUs where MLflow can ask them, as the
`system/` metrics of its MLflow run."""

import contextlib
import logging
from collections.abc import Iterator

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

PREFIX = "system/"
# A point for each; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets another. Runs shorter than this have none.
SAMPLING_SECONDS = 10.0


def wanted() -> bool:
    """Whether MLflow's switch leaves system metrics on."""
    return not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.is_set() or bool(MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get())


@contextlib.contextmanager
def system_metrics(run_id: str) -> Iterator[None]:
    """Watch this machine for the length of the block; a resumed run's curves go on.

    Where the system tells nothing, or MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false, nothing is recorded: training
    never fails for it. GPUs need the package nvidia-ml-py (NVIDIA) or pyrsmi (AMD).
    """
    monitor = None
    if wanted():
        try:
            monitor = SystemMetricsMonitor(run_id, sampling_interval=SAMPLING_SECONDS, resume_logging=True)
        except Exception as error:
            logging.getLogger(__name__).warning("no system metrics are recorded: %s", error)
    if monitor is None:
        yield
        return
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
