"""The loopback interface: ports of servers, opened before their packages are loaded, and no proxy between."""

import os
import socket
from urllib.request import getproxies_environment

from rdmd.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def keep_loopback_direct() -> None:
    """Add the loopback interface to NO_PROXY where a proxy is set: a proxy does not reach this machine's own servers.

    Child processes inherit it.
    """
    if not getproxies_environment().keys() - {"no"}:
        return
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in excepted.split(",") if name.strip()]
    joined = ",".join([*names, *(name for name in LOOPBACK if name not in names)])
    # Which of the two is read, depends on the library.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = joined


def listen(who: str, host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free port. Raises UserError with the name `who` if the system refuses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{who} cannot listen on {host} port {port} ({reason}); give another --port.") from None
