"""The demo's server, in this process until Ctrl-C."""

import contextlib
import socket

import uvicorn
from fastapi import FastAPI

from rdmd.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost")
# A connection that a browser keeps open does not hold up Ctrl-C for longer.
STOP_SECONDS = 2


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one. Raises UserError if the system refuses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"the demo cannot listen on {host} port {port} ({reason}); give another --port, or none to "
                        "take a free one.") from None


def hosts(host: str) -> list[str]:
    """The names by which a browser may ask for what listens on `host`: any, where it is more than the loopback."""
    return list(LOOPBACK) if host in LOOPBACK else ["*"]


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=STOP_SECONDS))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
