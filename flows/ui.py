"""The pages of Prefect and MLflow on this machine, with a form that starts runs: `python -m flows.ui`.

`python -m flows.ui deployment` executes the runs of the form alone, for the server that PREFECT_API_URL names. A team
declares the same in `prefect.yaml`.
"""

import os
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

from prefect.flows import EntrypointType

from flows.artifacts import MLFLOW_UI
from flows.reproduce import reproduce
from flows.server import API, STARTING, answers, free_port, prefect_command, running, wait_for_api
from rdmd.errors import UserError, reporting
from rdmd.pipeline.process_group import exit_on_signals
from rdmd.pipeline.store import relocate

NAME = "project"
POLL_SECONDS = 0.5
# The logs of the three servers, of the last start.
LOGS = Path(os.environ["PREFECT_HOME"]) / "ui"


def main() -> None:
    """Serve both pages and the deployment `reproduce` on the loopback until Ctrl-C, or until one of them ends."""
    exit_on_signals()
    prefect_port, mlflow_port = free_port(), free_port()
    prefect, mlflow = f"http://127.0.0.1:{prefect_port}", f"http://127.0.0.1:{mlflow_port}"
    mlflow_command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(mlflow_port)]
    mlflow_command += ["--workers", "1", "--backend-store-uri", os.environ["MLFLOW_TRACKING_URI"]]
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
        start("deployment", [sys.executable, "-m", "flows.ui", "deployment"])
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


def serve_deployment() -> None:
    """Make the deployment `reproduce/project` of this folder, and execute its scheduled runs, one at a time."""
    if not os.environ.get(API):
        raise UserError(f"{API} names no Prefect server for the deployment; run `make ui`, or set it.")
    wait_for_api()
    # Prefect 3.8 does not await it when SIGTERM ends the runner; the runs end all the same.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    reproduce.serve(
        name=NAME,
        description=reproduce.__doc__,
        # The others wait, since runs share params.yaml. It is the runner's limit and not the deployment's: the server
        # keeps the slots of that in memory, and after a `kill -9` of both they would stay taken.
        limit=1,
        # A path would load the file under another module's name.
        entrypoint_type=EntrypointType.MODULE_PATH,
        pause_on_shutdown=False,
        print_starting_message=False,
    )


if __name__ == "__main__":
    with reporting(debug=False):
        serve_deployment() if sys.argv[1:] == ["deployment"] else main()
