"""A command that does not outlive the process that started it.

`process_group` starts a small process between the two, `python -m rdmd.pipeline.process_group SIGNAL COMMAND...`. Its
standard input is a pipe that the starter holds open. When the pipe closes, because the starter asks for an end or has
died (even by `kill -9`), it ends the whole process group of the command: training runs write their checkpoints, and
servers leave their ports.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn

# Every stage, DVC and the servers end well after a Ctrl-C; what ignores it gets a stronger signal. A training run in a
# session of its own sees that its starter has ended, and takes a few seconds more.
SIGTERM_AFTER = 7.0
SIGKILL_AFTER = 11.0
# The starter waits a little longer than the group needs.
STOP_SECONDS = 13.0
POLL_SECONDS = 0.1


@contextlib.contextmanager
def process_group(
    command: list[str],
    environment: dict[str, str] | None = None,
    output: IO[bytes] | int | None = None,
    cwd: Path | None = None,
    keep_open: tuple[int, ...] = (),
    first: signal.Signals = signal.SIGINT,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the folder `cwd`; the end of the block ends it and all its children, within `STOP_SECONDS`.

    Yields the process between, whose exit status is that of the command. `output` receives stdout and stderr (default:
    those of this process). `keep_open` are file descriptors that stay open for as long as the command lives, such as
    that of a lock. `first` is the signal that asks the command to end; SIGTERM and SIGKILL follow it. A Ctrl-C in the
    terminal does not reach the command.
    """
    group = subprocess.Popen(
        [sys.executable, "-m", "rdmd.pipeline.process_group", first.name, *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        env=environment,
        cwd=cwd,
        start_new_session=True,
        pass_fds=keep_open,
    )
    assert group.stdin is not None
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.stdin.close()
        try:
            group.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(group.pid, signal.SIGKILL)
            group.wait()


def run_in_group(
    command: list[str],
    environment: dict[str, str],
    say: Callable[[str], None],
    cwd: Path | None = None,
    keep_open: tuple[int, ...] = (),
) -> int:
    """Run a command in a `process_group` to its end, pass every line of its output to `say`, and return its status."""
    with process_group(command, environment, subprocess.PIPE, cwd, keep_open) as group:
        reader = threading.Thread(target=_read, args=(group, say), daemon=True)
        reader.start()
        status = group.wait()
        reader.join(1.0)
    return status


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP leave this process through its `with` and `finally` blocks, with status 128 + signal."""

    def leave(number: int, frame: object) -> NoReturn:
        # A second signal must not interrupt the blocks.
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def _read(group: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    assert group.stdout is not None
    for line in io.TextIOWrapper(group.stdout, errors="replace"):
        if text := line.rstrip():
            say(text)


def main(first: signal.Signals, command: list[str]) -> int:
    """Run a command until it ends or standard input closes; return its exit status (128 + n after signal n)."""
    closed = threading.Event()
    # Handlers, unlike SIG_IGN, are not inherited: the command begins with the system's own, even below a `nohup`.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: closed.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_until_closed, args=(closed,), daemon=True).start()
    while child.poll() is None and not closed.is_set():
        closed.wait(POLL_SECONDS)
    if closed.is_set():
        _end(child, first)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _until_closed(closed: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    closed.set()


def _end(child: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """End a process group, more firmly the longer it takes."""
    asked = time.monotonic()
    _signal_group(child.pid, first)
    pending = [(SIGTERM_AFTER, signal.SIGTERM), (SIGKILL_AFTER, signal.SIGKILL)]
    while _group_lives(child):
        if pending and time.monotonic() - asked > pending[0][0]:
            _signal_group(child.pid, pending.pop(0)[1])
        time.sleep(POLL_SECONDS)


def _group_lives(child: subprocess.Popen[bytes]) -> bool:
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
    sys.exit(main(signal.Signals[sys.argv[1]], sys.argv[2:]))
