"""A Prefect server for the length of one command: `python -m flows.server dvc repro`.

Every flow without a server starts one of its own, which costs each stage about ten seconds; this one starts beside the
first stages. Nothing is started where PREFECT_API_URL names a server already.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from flows.environment import ROOT
from flows.project_lock import alone_in_the_project, remove_damaged_lock, restore_damaged_dvc_lock
from rdmd.errors import UserError, reporting
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.process_group import exit_on_signals, process_group
from rdmd.pipeline.store import unregistered

API = "PREFECT_API_URL"
# Flags of `dvc repro` for the stage `register` alone, up to date or not.
REGISTER_ANYWAY = ("--single-item", "--force", "register")
# Tells flows that the server named by PREFECT_API_URL may still be starting.
STARTING = "RDMD_PREFECT_SERVER_STARTING"
# A tag of all flow runs of one command.
INVOCATION = "RDMD_INVOCATION"
START_SECONDS = 90.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class PrefectServer:
    """A server of our own. `environment` is that in which flows use it."""

    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    def check(self) -> None:
        """Raise UserError if the server has ended."""
        status = self.process.poll()
        if status is not None:
            raise UserError(
                f"Prefect's server ended by itself (exit status {status}, log {self.log}), so the run was stopped; "
                "repeat the command: finished work is kept, and trainings resume."
            )


def free_port() -> int:
    """A TCP port on the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def running(
    command: list[str], output: IO[bytes] | int | None = None
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """A server for the length of a block; it ends with this process, however that ends."""
    # Prefect's servers stop the runs that they have started on SIGTERM.
    return process_group(command, output=output, cwd=ROOT, first=signal.SIGTERM)


def prefect_command(port: int) -> list[str]:
    """The command that starts Prefect's server on the loopback interface."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


@contextlib.contextmanager
def prefect_server() -> Iterator[PrefectServer]:
    """Run a server for the length of a block. It may still be starting."""
    port = free_port()
    log = Path(os.environ["PREFECT_HOME"]) / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output, running([*prefect_command(port), "--no-ui"], output) as process:
        yield PrefectServer(process, log, os.environ | {API: f"http://127.0.0.1:{port}/api", STARTING: "1"})


def wait_for_api() -> None:
    """Return once the server that PREFECT_API_URL names answers; at once where the variable is not set.

    Raises UserError at the first failure, or after 90 s where the server is known to be starting.
    """
    api = os.environ.get(API)
    if api is None:
        return
    deadline = time.monotonic() + (START_SECONDS if os.environ.get(STARTING) else 0.0)
    while not answers(f"{api.rstrip('/')}/health"):
        if time.monotonic() > deadline:
            raise UserError(
                f"Prefect's server at {api} does not answer; start it (`prefect server start`), correct "
                f"{API}, or unset it to let each stage start its own."
            )
        time.sleep(0.25)


def answers(address: str) -> bool:
    """Whether a server answers at a URL."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def main(command: list[str]) -> int:
    """Run a command with a server beside it, then the stage `register` if the store lacks the registered models.

    Waits first until no other run works in this project. Returns the exit status. Raises UserError if the server ends
    before the command, which is stopped then, because its flows would wait for the server for minutes.
    """
    exit_on_signals()
    os.environ.setdefault(INVOCATION, f"repro {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    with alone_in_the_project(_say) as lock:
        remove_damaged_lock(ROOT)
        restore_damaged_dvc_lock(ROOT, _say)
        if os.environ.get(API):
            return _run_and_register(command, None, lock)
        with prefect_server() as server:
            return _run_and_register(command, server, lock)


def _run_and_register(command: list[str], server: PrefectServer | None, lock: int) -> int:
    """DVC skips `register` where reports/registry.json is up to date, which git brings without the registry."""
    status = _run(command, server, lock)
    try:
        reason = None if status else unregistered(Layout(ROOT).registry)
    except UserError:
        # A store that does not answer is no reason to repeat a stage; `rdmd summary` reports it.
        reason = None
    if reason is None:
        return status
    _say(f"registering again, since {reason}")
    return _run([sys.executable, "-m", "dvc", "repro", *REGISTER_ANYWAY], server, lock)


def _say(text: str) -> None:
    print(text, flush=True)


def _run(command: list[str], server: PrefectServer | None, lock: int) -> int:
    """Run a command while the server lives; its exit status. It holds the project's lock for as long as it lives."""
    with process_group(command, server.environment if server else None, keep_open=(lock,)) as group:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return group.wait(POLL_SECONDS if server else None)
            if server:
                server.check()


if __name__ == "__main__":
    with reporting(debug=False):
        sys.exit(main(sys.argv[1:]))
