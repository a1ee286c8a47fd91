"""The warm process: `python -m rdmd.warm.process LISTENER MODULE... -- MODULE...`, started by `rdmd.warm.start`.

Imports the modules and serves, on the listening socket that is the descriptor LISTENER, until its standard input and
its last copy have ended. It serves when it has imported those before `--`, and imports the others in between.
"""

import contextlib
import importlib
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rdmd.warm.child import become, leave, run
from rdmd.warm.fitness import Fitness
from rdmd.warm.protocol import LATER, READY, Request, receive, receive_request, send

# Between asking a copy to end whose client has gone, and killing it: as long as a training is given.
GRACE_SECONDS = 12.0
HELD = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Served:
    """A client, what it asked for, and its copy."""

    connection: socket.socket
    request: Request | None = None
    streams: list[int] = field(default_factory=list)
    pid: int | None = None
    handle: int | None = None
    """A pidfd of the copy: readable when it has ended."""
    deadline: float | None = None
    """When the copy is killed whose client has gone."""


class Server:
    """Answers clients one packet at a time, in one thread."""

    def __init__(self, listener: socket.socket, fitness: Fitness) -> None:
        self._listener, self._fitness = listener, fitness
        self._served: list[Served] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        # Its other end is held by whoever started this.
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._close)
        self._open = True

    def serve(self) -> Request | None:
        """Serve until nobody is left: then None. In a copy, what it has to run."""
        while self.wanted:
            request = self._answer_one(1.0)
            if request is not None:
                return request
        return None

    def serve_waiting(self) -> Request | None:
        """Answer who waits already. In a copy, what it has to run."""
        while self._selector.select(0):
            request = self._answer_one(0)
            if request is not None:
                return request
        return None

    @property
    def wanted(self) -> bool:
        """Whether anybody is left to serve, or may come."""
        return self._open or bool(self._served)

    def _answer_one(self, seconds: float) -> Request | None:
        # One at a time: an answer may close what another event is about.
        for key, _ in self._selector.select(seconds)[:1]:
            request = key.data()
            if request is not None:
                return request
        self._kill_overdue()
        return None

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        served = Served(connection)
        self._served.append(served)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._answer(served))

    def _close(self) -> None:
        self._open = False
        self._selector.unregister(sys.stdin)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _answer(self, served: Served) -> Request | None:
        if served.request is None:
            self._consider(served)
            return None
        said = receive(served.connection)
        if said is None:
            self._lose(served)
        elif "signal" in said and served.handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(served.handle, int(str(said["signal"])))
        elif "go" in said and served.pid is None:
            return self._fork(served)
        return None

    def _consider(self, served: Served) -> None:
        try:
            received = receive_request(served.connection)
        except OSError:
            received = None
        if received is None:
            self._forget(served)
            return
        served.request, served.streams = received
        unfit = self._fitness.objection(served.request)
        if unfit:
            print(f"refused {served.request.module}: {unfit}", flush=True)
        with contextlib.suppress(OSError):
            send(served.connection, {"refused": unfit} if unfit else READY)
        if unfit:
            self._forget(served)

    def _fork(self, served: Served) -> Request | None:
        assert served.request is not None
        # A copy would write what waits here again.
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # What comes before the copy listens waits for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        served.pid = os.fork()
        if served.pid == 0:
            self._selector.close()
            self._listener.close()
            for other in self._served:
                other.connection.close()
                for descriptor in (other.handle, *(other.streams if other is not served else ())):
                    if descriptor is not None:
                        os.close(descriptor)
            become(served.request, served.streams, self._fitness.imported(), parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
            return served.request
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
        served.handle = os.pidfd_open(served.pid)
        self._selector.register(served.handle, selectors.EVENT_READ, lambda: self._reap(served))
        self._close_streams(served)
        with contextlib.suppress(OSError):
            send(served.connection, {"pid": served.pid})
        return None

    def _reap(self, served: Served) -> None:
        assert served.pid is not None and served.handle is not None
        _, status = os.waitpid(served.pid, 0)
        self._selector.unregister(served.handle)
        os.close(served.handle)
        with contextlib.suppress(OSError):
            send(served.connection, {"status": status})
        self._forget(served)

    def _lose(self, served: Served) -> None:
        """The client has gone."""
        if served.handle is None:
            self._forget(served)
            return
        self._selector.unregister(served.connection)
        served.deadline = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(served.handle, signal.SIGTERM)

    def _kill_overdue(self) -> None:
        for served in self._served:
            if served.deadline is not None and time.monotonic() > served.deadline and served.pid is not None:
                served.deadline = None
                # The copy leads its group, and is not reaped yet: the number is still its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(served.pid, signal.SIGKILL)

    def _forget(self, served: Served) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(served.connection)
        served.connection.close()
        self._close_streams(served)
        self._served.remove(served)

    def _close_streams(self, served: Served) -> None:
        for stream in served.streams:
            os.close(stream)
        served.streams = []


def main(arguments: list[str]) -> Request | None:
    """Import, serve; in a copy, what it has to run."""
    # A Ctrl-C goes to the clients, and from there to the copies that they wait for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number, *modules = arguments
    end = modules.index(LATER)
    fitness = Fitness(Path.cwd())
    for module in modules[:end]:
        importlib.import_module(module)
    fitness.imports_done()
    # Whoever started this asks it to end, which it does with its last copy. Until here it has none.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server(socket.socket(fileno=int(number)), fitness)
    for module in modules[end + 1 :]:
        request = server.serve_waiting()
        if request is not None or not server.wanted:
            return request
        try:
            importlib.import_module(module)
        except ImportError as error:
            # Copies are at work already; the one that needs it will say what is wrong.
            print(f"could not import {module}: {error}", flush=True)
        fitness.imports_done()
    return server.serve()


if __name__ == "__main__":
    copied = main(sys.argv[1:])
    if copied is not None:
        leave(run(copied))
