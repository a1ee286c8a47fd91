"""Start a warm process for the length of a block."""

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rdmd.warm.fitness import NO_THREADS
from rdmd.warm.protocol import ADDRESS, LATER

STOP_SECONDS = 10.0


@contextlib.contextmanager
def warm_process(
    modules: Sequence[str], folder: Path, environment: dict[str, str], log: Path, later: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """Import `modules` in a process whose copies run in `folder`; gives the variables by which clients find it.

    Those of `later` it imports when it makes copies already, which import for themselves what is not there yet.

    It is started in `environment`, which theirs must equal but for what tells stages apart, and may still be importing.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # Only this user can enter it.
    with tempfile.TemporaryDirectory(prefix="rdmd-warm-") as private:
        address = str(Path(private) / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, log.open("wb") as output:
            listener.bind(address)
            listener.listen()
            number = listener.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", "rdmd.warm.process", str(number), *modules, LATER, *later],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment | NO_THREADS,
                pass_fds=(number,),
                cwd=folder,
                start_new_session=True,
            )
        try:
            yield {ADDRESS: address}
        finally:
            # It stays until its last copy has ended, whose client may have been left behind.
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
