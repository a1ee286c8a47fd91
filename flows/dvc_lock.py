"""DVC's list of who reads and writes what, mended after a `kill -9`.

DVC 3.67 rewrites `.dvc/tmp/rwlock` in place, so a kill in that instant leaves it cut short, and every later `dvc repro`
refuses to start. The list names running processes only: without it DVC loses nothing.
"""

import json
from pathlib import Path


def mend(root: Path) -> bool:
    """Remove a `.dvc/tmp/rwlock` that is not JSON, unless a running DVC is just writing it; says whether it did.

    root: the project's folder.
    """
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
