"""The pages of Prefect and MLflow on this machine, with a form to start runs from: `python -m flows.ui`. Ctrl-C stops
all of it."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack

from flows.server import API, STARTING, end_blocks_on_sigterm, free_port, prefect_command, running, wait_for_api
from flows.shown import MLFLOW_UI
from rdmd.errors import UserError, reporting

POLL_SECONDS = 0.5


def main() -> None:
    """Serve both pages and the deployment `reproduce` on the loopback until Ctrl-C, or until one of them ends."""
    end_blocks_on_sigterm()
    prefect_port, mlflow_port = free_port(), free_port()
    prefect, mlflow = f"http://127.0.0.1:{prefect_port}", f"http://127.0.0.1:{mlflow_port}"
    mlflow_command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(mlflow_port),
                      "--backend-store-uri", os.environ["MLFLOW_TRACKING_URI"]]
    # Of the server that is started here, for its own pages as well as for the deployment.
    os.environ |= {API: f"{prefect}/api", STARTING: "1", MLFLOW_UI: mlflow}
    with ExitStack() as stack:
        # Left in the opposite order: a run that is stopped tells the server so.
        servers = [stack.enter_context(running(prefect_command(prefect_port), subprocess.DEVNULL)),
                   stack.enter_context(running(mlflow_command))]
        print(f"Prefect  {prefect}\nMLflow   {mlflow}", flush=True)
        wait_for_api()
        servers.append(stack.enter_context(running([sys.executable, "-m", "flows.deployment"])))
        print(f"start a run at {prefect}/deployments (reproduce/project), or by\n"
              f"  PREFECT_API_URL={prefect}/api dvc repro\nCtrl-C stops all of it", flush=True)
        while all(server.poll() is None for server in servers):
            time.sleep(POLL_SECONDS)
    raise UserError("a server ended by itself; run `rdmd doctor`.")


if __name__ == "__main__":
    with reporting(debug=False):
        main()
