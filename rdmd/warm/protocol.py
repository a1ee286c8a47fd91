"""What a client and the warm process say to each other: one JSON object a packet, over a Unix socket.

The client sends a `Request` with its standard streams; the answer is `READY`, or the reason why not, after which the
client does the work itself. Only upon the client's `GO` is a copy made, so that a client that went away in between is
never run twice. Then come the copy's `pid`, and at last its `status` as `os.waitpid` has it. The client may send the
number of a `signal` at any time. A client that goes away takes its copy with it.
"""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

# Names the socket. Where it is not set, or nobody answers, every process imports for itself.
ADDRESS = "RDMD_WARM"
# On the warm process's command line, before the modules that it imports while it serves.
LATER = "--"
READY = {"ready": True}
GO = {"go": True}
# More than a system's usual limit on an environment; a packet that does not fit the socket's buffer is refused.
LARGEST = 2**20
STREAMS = 3

Message = dict[str, object]


@dataclass(frozen=True)
class Request:
    """What `python -m module arguments` would be given, and by which Python and which copy of this project."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    python: str
    project: str


def project() -> str:
    """Where the code of this process lies."""
    return str(Path(__file__).resolve())


def send_request(connection: socket.socket, request: Request, streams: list[int]) -> None:
    """Send a request with descriptors of standard input, output and error."""
    socket.send_fds(connection, [json.dumps(asdict(request)).encode()], streams)


def receive_request(connection: socket.socket) -> tuple[Request, list[int]] | None:
    """A request with its descriptors; None where the client has gone or says something else."""
    packet, streams, _, _ = socket.recv_fds(connection, LARGEST, STREAMS)
    try:
        return Request(**json.loads(packet)), streams
    except (ValueError, TypeError):
        return None


def send(connection: socket.socket, message: Message) -> None:
    """Send anything else."""
    connection.send(json.dumps(message).encode())


def receive(connection: socket.socket) -> Message | None:
    """The next message; None where the other side has gone."""
    try:
        packet = connection.recv(LARGEST)
    except ConnectionError:
        return None
    return json.loads(packet) if packet else None
