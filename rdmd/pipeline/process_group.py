"""A command that does not outlive the process that started it.

`run_in_group` starts a small process between the two, `python -m rdmd.pipeline.process_group COMMAND...`. Its standard
input is a pipe that the starter holds open. When the pipe closes, because the starter asks for an end or has died (even
by `kill -9`), it ends the whole process group of the command: training runs write their checkpoints, and servers leave
their ports.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# Every stage, DVC and the servers end well after a Ctrl-C; what ignores it gets a stronger signal. A training run in a
# session of its own sees that its starter has ended, and takes a few seconds more.
SIGTERM_AFTER = 7.0
SIGKILL_AFTER = 11.0
# The starter waits a little longer than the group needs.
STOP_SECONDS = 13.0
POLL_SECONDS = 0.1


def run_in_group(
    command: list[str],
    environment: dict[str, str],
    say: Callable[[str], None],
    cwd: Path | None = None,
    keep_open: tuple[int, ...] = (),
) -> int:
    """Run a command to its end in the folder `cwd`, pass every line of its output to `say`, and return its exit status.

    Whatever ends this function ends the command and all its children too, within `STOP_SECONDS`. `keep_open` are file
    descriptors that stay open for as long as the command lives, such as that of a lock.
    """
    group = subprocess.Popen(
        [sys.executable, "-m", "rdmd.pipeline.process_group", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=environment, cwd=cwd, start_new_session=True, pass_fds=keep_open,
    )  # fmt: skip
    assert group.stdin is not None
    reader = threading.Thread(target=_read, args=(group, say), daemon=True)
    reader.start()
    try:
        group.wait()
    finally:
        with contextlib.suppress(OSError):
            group.stdin.close()
        try:
            group.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(group.pid, signal.SIGKILL)
            group.wait()
        reader.join(1.0)
    return group.returncode


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP leave this process through its `with` and `finally` blocks, with status 128 + signal."""

    def leave(number: int, frame: object) -> NoReturn:
        # A second signal must not interrupt the blocks.
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def _read(group: "subprocess.Popen[str]", say: Callable[[str], None]) -> None:
    assert group.stdout is not None
    for line in group.stdout:
        if text := line.rstrip():
            say(text)


def main(command: list[str]) -> int:
    """Run a command until it ends or standard input closes; gives its exit status (128 + n after signal n)."""
    closed = threading.Event()
    # Handlers, unlike SIG_IGN, are not inherited: the command begins with the system's own, even below a `nohup`.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: closed.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_until_closed, args=(closed,), daemon=True).start()
    while child.poll() is None and not closed.is_set():
        closed.wait(POLL_SECONDS)
    if closed.is_set():
        _end(child)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _until_closed(closed: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    closed.set()


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a process group, more firmly the longer it takes."""
    asked = time.monotonic()
    _signal_group(child.pid, signal.SIGINT)
    pending = [(SIGTERM_AFTER, signal.SIGTERM), (SIGKILL_AFTER, signal.SIGKILL)]
    while _group_lives(child):
        if pending and time.monotonic() - asked > pending[0][0]:
            _signal_group(child.pid, pending.pop(0)[1])
        time.sleep(POLL_SECONDS)


def _group_lives(child: "subprocess.Popen[bytes]") -> bool:
    child.poll()  # reaps it, or its group would seem to live
    try:
        os.killpg(child.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
