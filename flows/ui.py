"""The pages of Prefect and MLflow on this machine, with a form that starts runs: `python -m flows.ui`."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from flows.artifacts import MLFLOW_UI
from flows.deployment import NAME
from flows.server import (
    API,
    STARTING,
    answers,
    free_port,
    prefect_command,
    running,
)
from rdmd.errors import UserError, reporting
from rdmd.pipeline.process_group import exit_on_signals
from rdmd.pipeline.store import relocate

POLL_SECONDS = 0.5
# The logs of the three servers, of the last start.
LOGS = Path(os.environ["PREFECT_HOME"]) / "ui"


def main() -> None:
    """Serve both pages and the deployment `reproduce` on the loopback until Ctrl-C, or until one of them ends."""
    exit_on_signals()
    prefect_port, mlflow_port = free_port(), free_port()
    prefect, mlflow = f"http://127.0.0.1:{prefect_port}", f"http://127.0.0.1:{mlflow_port}"
    mlflow_command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(mlflow_port)]
    mlflow_command += ["--backend-store-uri", os.environ["MLFLOW_TRACKING_URI"]]
    # For the server that is started here, its pages and the deployment.
    os.environ |= {API: f"{prefect}/api", STARTING: "1", MLFLOW_UI: mlflow}
    LOGS.mkdir(parents=True, exist_ok=True)
    relocate(os.environ["MLFLOW_TRACKING_URI"])
    servers: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:

        def start(name: str, command: list[str]) -> None:
            log = stack.enter_context((LOGS / f"{name}.log").open("wb"))
            servers[name] = stack.enter_context(running(command, log))

        # They end in the opposite order: a run that is stopped reports to the server.
        start("prefect", prefect_command(prefect_port))
        start("mlflow", mlflow_command)
        print(f"Prefect  {prefect}\nMLflow   {mlflow}\nboth are starting, which takes half a minute", flush=True)
        while not (answers(f"{prefect}/api/health") and answers(f"{mlflow}/health")):
            _check(servers)
        start("deployment", [sys.executable, "-m", "flows.deployment"])
        while not answers(f"{prefect}/api/deployments/name/reproduce/{NAME}"):
            _check(servers)
        print(
            f"start a run at {prefect}/deployments (reproduce/{NAME}), or by\n"
            f"  PREFECT_API_URL={prefect}/api dvc repro\nCtrl-C stops all of it",
            flush=True,
        )
        while True:
            _check(servers)


def _check(servers: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait a little. Raises UserError if a server has ended."""
    for name, server in servers.items():
        if server.poll() is not None:
            raise UserError(
                f"the {name} server ended by itself; read {LOGS / f'{name}.log'}, and run `rdmd doctor`, which checks "
                "its requirements."
            )
    time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    with reporting(debug=False):
        main()
