"""One run at a time in a project, and DVC's files after a `kill -9` or a full disk.

DVC is imported where it is needed, since every stage imports this.
"""

import fcntl
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.environment import ROOT
from rdmd.files import replacing


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


def restore_damaged_dvc_lock(root: Path, say: Callable[[str], None]) -> None:
    """Replace a dvc.lock that DVC left half-written by that of the last commit, or remove it where git has none.

    DVC writes it in place. Stages that ran since are not lost: DVC takes their outputs from its cache.
    """
    file = root / "dvc.lock"
    if not file.exists() or _is_lock(file.read_bytes()):
        return
    committed = subprocess.run(["git", "show", "HEAD:./dvc.lock"], cwd=root, capture_output=True, check=False)
    kept = committed.returncode == 0 and _is_lock(committed.stdout)
    if kept:
        with replacing(file) as temporary:
            temporary.write_bytes(committed.stdout)
    else:
        file.unlink()
    now = "that of the last commit takes its place" if kept else "it is removed"
    say(f"dvc.lock was cut short, by a full disk or a kill; {now}")


def _is_lock(content: bytes) -> bool:
    import yaml
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(content, yaml.CSafeLoader))
    except (yaml.YAMLError, Invalid):
        return False
    return True


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
