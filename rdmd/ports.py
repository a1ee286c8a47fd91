"""Open the ports of servers before their packages are loaded."""

import socket

from rdmd.errors import UserError


def listen(who: str, host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free port. Raises UserError with the name `who` if the system refuses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{who} cannot listen on {host} port {port} ({reason}); give another --port.") from None
