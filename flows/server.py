"""A Prefect server for the length of one command: `python -m flows.server dvc repro`.

Every flow without a server starts one of its own, which costs each stage about ten seconds; this one starts beside the
first stages. Nothing is started where PREFECT_API_URL names a server already.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flows.dvc_project import mend
from flows.environment import ROOT
from rdmd.errors import UserError, reporting
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.store import unregistered

API = "PREFECT_API_URL"
# The concurrency limits of `flows.device_pool` begin with this.
SLOT_PREFIX = "rdmd-"
# Flags of `dvc repro` for the stage alone, up to date or not.
REGISTER_ANYWAY = ("--single-item", "--force", "register")
# Says to flows that the server named by PREFECT_API_URL may still be starting.
STARTING = "RDMD_PREFECT_SERVER_STARTING"
START_SECONDS = 90.0
STOP_SECONDS = 10.0


def end_blocks_on_sigterm() -> None:
    """Let SIGTERM leave this process through its `with` blocks: by default it would leave the servers behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def free_port() -> int:
    """A TCP port on the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], output: IO[bytes] | int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process group of its own, which a Ctrl-C does not reach and the end of the block ends."""
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=ROOT
    )
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def prefect_command(port: int) -> list[str]:
    """Prefect's server on the loopback."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


@contextlib.contextmanager
def slots_in_use() -> Iterator[None]:
    """Keep `free_stale_slots` from freeing any slot while the block runs, or until the process dies."""
    with _slots_lock() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def free_stale_slots() -> list[str]:
    """Free the slots that killed processes left taken in Prefect's database below PREFECT_HOME; gives their names.

    Call it before a server starts on that database. Nothing happens while a process holds a slot (`slots_in_use`) or
    where there is no such database. Prefect frees a slot when its lease expires, 5 minutes after the kill, but only
    while a server with the service for that runs, and not where the file of the lease was lost.
    """
    home = Path(os.environ["PREFECT_HOME"])
    database = home / "prefect.db"
    with _slots_lock() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        if not database.exists():
            return []
        with contextlib.closing(sqlite3.connect(database)) as connection:
            try:
                taken = dict(
                    connection.execute(
                        "SELECT id, name FROM concurrency_limit_v2 WHERE active_slots > 0 AND substr(name, 1, ?) = ?",
                        (len(SLOT_PREFIX), SLOT_PREFIX),
                    ).fetchall()
                )
                # A lease that stayed would free the slot again when it expires, under the run that has it by then.
                _forget_leases(home / "concurrency_leases", set(taken))
                with connection:
                    connection.executemany(
                        "UPDATE concurrency_limit_v2 SET active_slots = 0 WHERE id = ?", [(one,) for one in taken]
                    )
            except sqlite3.OperationalError:
                # The server was killed before it made the tables, or another one writes: then the leases expire.
                return []
    return sorted(taken.values())


@contextlib.contextmanager
def _slots_lock() -> Iterator[IO[str]]:
    file = Path(os.environ["PREFECT_HOME"]) / "slots.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        yield lock


def _forget_leases(folder: Path, limits: set[str]) -> None:
    """Remove Prefect's lease files of those limits. Prefect removes them from its index by itself."""
    for file in folder.glob("*.json"):
        try:
            resources = json.loads(file.read_text(encoding="utf-8")).get("resource_ids", [])
        except ValueError:
            continue
        if limits & set(resources):
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def prefect_server() -> Iterator[dict[str, str]]:
    """Run a server on the loopback; gives the environment in which flows use it. It may still be starting."""
    free_stale_slots()
    port = free_port()
    log = Path(os.environ["PREFECT_HOME"]) / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output, running([*prefect_command(port), "--no-ui"], output):
        yield os.environ | {API: f"http://127.0.0.1:{port}/api", STARTING: "1"}


def wait_for_api() -> None:
    """Return once the server that PREFECT_API_URL names answers; at once where none is named.

    Raises UserError if it does not: at the first failure, or after 90 s where it was said to be starting.
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
    """Whether there is something at a URL."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def main(command: list[str]) -> int:
    """Run a command with a server beside it, and then the stage `register` if the registry lacks what its output says;
    gives the exit status."""
    mend(ROOT)
    if os.environ.get(API):
        return _run_and_register(command, dict(os.environ))
    end_blocks_on_sigterm()
    with prefect_server() as environment:
        return _run_and_register(command, environment)


def _run_and_register(command: list[str], environment: dict[str, str]) -> int:
    """DVC skips `register` where reports/registry.json is up to date, which git brings without the registry."""
    status = _run(command, environment)
    try:
        reason = None if status else unregistered(Layout(ROOT).registry)
    except UserError:
        # A store that does not answer is no reason to repeat a stage, and `rdmd summary` tells it.
        reason = None
    if reason is None:
        return status
    print(f"registering again, since {reason}", flush=True)
    return _run([sys.executable, "-m", "dvc", "repro", *REGISTER_ANYWAY], environment)


def _run(command: list[str], environment: dict[str, str]) -> int:
    child = subprocess.Popen(command, env=environment)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The terminal has sent the same Ctrl-C to the command, which stops by itself.
            continue


if __name__ == "__main__":
    with reporting(debug=False):
        sys.exit(main(sys.argv[1:]))
