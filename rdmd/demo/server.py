"""The demo's server, in this process until Ctrl-C."""

import contextlib
import socket

import uvicorn
from fastapi import FastAPI

LOOPBACK = ("127.0.0.1", "localhost")
# A connection that a browser keeps open does not hold up Ctrl-C for longer.
STOP_SECONDS = 2


def hosts(host: str) -> list[str]:
    """The names by which a browser may ask for what listens on `host`: any, where it is more than the loopback."""
    return list(LOOPBACK) if host in LOOPBACK else ["*"]


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=STOP_SECONDS))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
