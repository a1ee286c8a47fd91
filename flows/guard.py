"""A command that does not outlive its launcher: `python -m flows.guard COMMAND...`, and `run_guarded`, which starts it.

The guard reads its standard input, a pipe that the launcher holds open. When that closes, because the launcher asks for
an end or has died (even by `kill -9`), the whole process group of the command is ended, so that training runs write
their checkpoints.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from flows.environment import ROOT

# A Ctrl-C is what every stage and DVC end well by; what does not heed it is ended by stronger means. A run that was
# told to stop by its launcher's end has a few seconds more, in a session of its own.
SIGTERM_AFTER = 7.0
SIGKILL_AFTER = 11.0
# The launcher waits a little longer than the guard needs.
STOP_SECONDS = 13.0
POLL_SECONDS = 0.1


def run_guarded(
    command: list[str], environment: dict[str, str], say: Callable[[str], None], keep_open: tuple[int, ...] = ()
) -> int:
    """Run a command in the project's folder to its end, every line of its output going to `say`; gives its exit status.

    Whatever ends this function ends the command and all its children too, within `STOP_SECONDS`. `keep_open` are file
    descriptors that the guard holds open for as long as the command lives, such as that of a lock.
    """
    guard = subprocess.Popen(
        [sys.executable, "-m", "flows.guard", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=environment, cwd=ROOT, start_new_session=True, pass_fds=keep_open,
    )  # fmt: skip
    assert guard.stdin is not None
    reader = threading.Thread(target=_read, args=(guard, say), daemon=True)
    reader.start()
    try:
        guard.wait()
    finally:
        with contextlib.suppress(OSError):
            guard.stdin.close()
        try:
            guard.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(guard.pid, signal.SIGKILL)
            guard.wait()
        reader.join(1.0)
    return guard.returncode


def _read(guard: "subprocess.Popen[str]", say: Callable[[str], None]) -> None:
    assert guard.stdout is not None
    for line in guard.stdout:
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
