"""Have a module run by a copy of the warm process instead of by a Python of its own, where that gives the same."""

import contextlib
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from rdmd.errors import UserError, reporting
from rdmd.warm.protocol import ADDRESS, GO, READY, Request, project, receive, send, send_request

# The process answers when it has imported everything.
READY_SECONDS = 90.0
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Whether this process is a copy itself.
COPIED = sys.orig_argv[1:3] == ["-m", "rdmd.warm.process"]
LOST = "the process that ran this was lost; finished steps are kept, repeat the same command to go on."


class Copy:
    """A copy that runs a module, in a session of its own. Used as `subprocess.Popen` is, by one thread."""

    def __init__(self, connection: socket.socket, pid: int, stdin: IO[bytes] | None) -> None:
        self._connection = connection
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._await(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        status = self._await(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("a copy of the warm process", timeout or 0.0)
        return status

    def forward(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with contextlib.suppress(OSError):
            send(self._connection, {"signal": number})

    def _await(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            said = receive(self._connection)
            # Without the warm process its copies are ended too.
            self.returncode = -signal.SIGKILL if said is None else os.waitstatus_to_exitcode(int(str(said["status"])))
            self._connection.close()
        return self.returncode


def start(
    module: str, arguments: list[str], environment: dict[str, str], streams: list[int], stdin: IO[bytes] | None = None
) -> Copy | None:
    """Run `python -m module arguments` in a copy; None where it must be run as usual.

    streams: descriptors that become its standard input, output and error. stdin: where the caller writes to it.
    Raises UserError if the warm process ended when it may have made the copy already.
    """
    connection = _ask(module, arguments, environment, streams)
    return None if connection is None else _go(connection, stdin)


def hand_over(module: str) -> None:
    """In a stage of DVC: let a copy run it with this process's arguments, and end as the copy ends. Returns where that
    cannot be.

    Called before anything slow is imported. Signals go to the copy, and the copy ends if this process is killed.
    """
    if not os.environ.get(ADDRESS) or not os.environ.get("DVC_STAGE") or COPIED:
        return
    with reporting(debug=False):
        connection = _ask(module, sys.argv[1:], dict(os.environ), [0, 1, 2])
        if connection is None:
            return
        early: list[int] = []
        for number in FORWARDED:
            signal.signal(number, lambda number, _: early.append(number))
        copy = _go(connection)
    _follow(copy, module, early)


def _ask(module: str, arguments: list[str], environment: dict[str, str], streams: list[int]) -> socket.socket | None:
    """A connection to a process that is ready to make a copy; nothing happens if it is closed."""
    address = os.environ.get(ADDRESS)
    if not address or sys.platform != "linux":
        return None
    request = Request(module, arguments, str(Path.cwd()), environment, sys.executable, project())
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(READY_SECONDS)
        connection.connect(address)
        send_request(connection, request, streams)
        if receive(connection) == READY:
            connection.settimeout(None)
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _go(connection: socket.socket, stdin: IO[bytes] | None = None) -> Copy:
    with contextlib.suppress(ConnectionError):
        send(connection, GO)
    said = receive(connection)
    if said is None:
        connection.close()
        raise UserError(LOST)
    return Copy(connection, int(str(said["pid"])), stdin)


def stage_of(package: str) -> str | None:
    """The module of `package` that this Python was started for by `python -m` alone, while it is looked up."""
    given = sys.orig_argv
    if sys.argv != ["-m"] or len(given) != 3 or given[1] != "-m" or not given[2].startswith(f"{package}."):
        return None
    return given[2]


def _follow(copy: Copy, module: str, early: list[int]) -> NoReturn:
    def forward(number: int, frame: FrameType | None) -> None:
        copy.forward(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    for number in early:
        copy.forward(number)
    if sys.argv[0] == "-m":
        # As `python -m` would name this process to whoever asks.
        found = importlib.util.find_spec(module)
        sys.argv[0] = (found and found.origin) or module
    status = copy.wait()
    if status < 0:
        if -status == signal.SIGKILL:
            print(f"rdmd: {LOST}", file=sys.stderr, flush=True)
        else:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        signal.pause()
    sys.exit(status)
