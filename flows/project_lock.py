"""One run at a time in a project, and DVC's lock after a `kill -9`. Imports no DVC, since every stage imports this."""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.environment import ROOT


@contextmanager
def alone_in_the_project(say: Callable[[str], None], root: Path = ROOT) -> Iterator[int]:
    """Wait until no other run works in this project; yields the lock's descriptor, which children may hold open.

    DVC itself waits for nobody: the second of two `dvc repro` fails at once.
    """
    file = root / ".dvc" / "tmp" / "reproduce.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run in this project to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def remove_damaged_lock(root: Path) -> bool:
    """Remove the `.dvc/tmp/rwlock` of the project at `root` if a killed DVC left it half-written; whether it did."""
    file = root / ".dvc" / "tmp" / "rwlock"
    if not file.exists() or _is_json(file):
        return False
    # Slow to import, and needed only after an accident.
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(str(file.with_name("rwlock.lock")), tmp_dir=str(file.parent)):
            if _is_json(file):
                return False
            file.unlink()
            return True
    except LockError:
        return False


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
