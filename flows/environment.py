"""The environment that Prefect and MLflow need, set before either is imported.

Nothing is overridden: what the user has set stays; a proxy is only kept from the loopback interface.
"""

import os
import sys
from pathlib import Path
from types import TracebackType

from rdmd.errors import STOPPED
from rdmd.ports import keep_loopback_direct

DEBUG = "--debug"
ROOT = Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()
STORE = ROOT / "mlflow" / "store"

_DEFAULTS = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A flow without a server starts one of its own, which takes longer than Prefect's 20 s on a busy laptop.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    # What `flows.reproduce` expects within some minutes from a flow run that lives.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_HOME": str(ROOT / ".prefect"),
    # The terminal shows bars and one sentence; the UI shows every log line. `--debug` shows all here as well.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "MLFLOW_TRACKING_URI": f"sqlite:///{STORE / 'mlflow.db'}",
    # A store that does not answer is reported within seconds, not after minutes of retries.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # CPU, memory, disk and network of the machine, and its GPUs where nvidia-ml-py is installed, while a run trains.
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
    # The UI would start workers for jobs that nothing here asks for, and leave them behind.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare() -> None:
    """Set what is not set yet."""
    if DEBUG in sys.argv:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "DEBUG"
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    keep_loopback_direct()
    sys.excepthook = _excepthook


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in a sentence that Ctrl-C came while this process imported its packages, which takes it seconds."""
    if issubclass(kind, KeyboardInterrupt) and DEBUG not in sys.argv:
        print(f"rdmd: {STOPPED}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
