"""What DVC or the readers cannot take in a folder of images: `rdmd check` names it before anything runs."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rdmd.data.samples import printable

NAMED = 3


def unusable(root: Path) -> list[str]:
    """The paths below the folder `root` that stop or mislead the pipeline, each with the reason; the first few only.

    DVC hashes every file, whether or not it is an image.
    """
    found = [f"{printable(path)} {reason}" for path, reason in _walk(root)]
    more = len(found) - NAMED
    return found[:NAMED] + ([f"{more} more"] if more > 0 else [])


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    real_root = root.resolve()
    unreadable: list[str] = []
    for folder, subfolders, files in os.walk(root, onerror=lambda error: unreadable.append(str(error.filename))):
        for name in sorted([*subfolders, *files]):
            path = Path(folder) / name
            if reason := _reason(path, real_root):
                yield str(path), reason
    yield from ((path, "cannot be read") for path in unreadable)


def _reason(path: Path, root: Path) -> str | None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "is a link that leads nowhere" if path.is_symlink() else "cannot be read"
    if path.is_symlink() and stat.S_ISDIR(mode):
        target = path.resolve()
        if root.is_relative_to(target) or target.is_relative_to(root):
            return "is a link to a folder that holds it or lies beside it"
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return "is a pipe, socket or device"
    # A folder that cannot be read is found by the walk.
    return None if stat.S_ISDIR(mode) or os.access(path, os.R_OK) else "cannot be read"
