"""Where servers of ours listen: asked of the system before anything is loaded for them."""

import socket

from rdmd.errors import UserError


def listen(who: str, host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one. Raises UserError, naming `who`, if the system refuses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{who} cannot listen on {host} port {port} ({reason}); give another --port.") from None
