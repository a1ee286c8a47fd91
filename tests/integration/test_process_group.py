"""A command that ends with the process that started it, by real signals."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from flows.server import answers, free_port

START = """
import os, sys
from rdmd.pipeline.process_group import exit_on_signals, run_in_group
exit_on_signals()
server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", sys.argv[1]]
# A child of a child, as MLflow's server is.
run_in_group([sys.executable, "-c", f"import subprocess; subprocess.run({server})"], dict(os.environ), print)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_whatever_ends_the_starter_ends_its_server(number: signal.Signals):
    port = free_port()
    starter = subprocess.Popen([sys.executable, "-c", START, str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), 60)
        starter.send_signal(number)
        if number == signal.SIGKILL:
            starter.wait()
            wait_until(lambda: can_listen(port), 20)
        else:
            assert starter.wait(20) == 128 + number
            assert can_listen(port)
    finally:
        starter.kill()


def can_listen(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
