"""Pictures in nested folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from rdmd.config import ImageFolder
from rdmd.domains.readers.listing import chosen
from rdmd.domains.readers.pictures import UnreadableError, decode
from rdmd.domains.samples import Broken, Reading, Sample, Split, printable
from rdmd.errors import UserError


def read(domain: ImageFolder, key: str) -> Reading:
    """Open the folder `domain.path`: its pictures in the order of their relative paths, on every file system.

    Linked folders are followed, each real folder once; hidden files and folders are skipped. `key` (such as
    `domains.source`) stands for the domain in messages. Raises `UserError` if there is no folder or no
    picture.
    """
    root = domain.path
    if root.is_file():
        raise UserError(
            f"{root} is a file; set {key}.reader to `archive` if it is a zip or tar, or give a folder."
        )
    if not root.is_dir():
        raise UserError(f"{root} does not exist; put a folder of pictures there or change {key}.path.")
    listed = chosen(sorted(_walk(root)), domain, key)
    return Reading(len(listed), (_read_one(root, name, split) for name, split in listed))


def _walk(root: Path) -> Iterator[str]:
    """Every file below `root`, relative, with forward slashes; an unreadable folder raises."""
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
        # A link back to a parent would otherwise never end.
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        relative = Path(folder).relative_to(root)
        yield from ((relative / file).as_posix() for file in files)


def _raise(error: OSError) -> None:
    raise error


def _read_one(root: Path, name: str, split: Split | None) -> Sample | Broken:
    shown = printable(name)
    path = root / name
    # Opening a pipe that happens to be called x.png would wait for ever.
    if path.exists() and not path.is_file():
        return Broken(shown, "not a regular file")
    try:
        with path.open("rb") as file:
            return Sample(shown, decode(file), split=split)
    except UnreadableError as error:
        return Broken(shown, str(error))
    except OSError as error:
        return Broken(shown, error.strerror or "cannot be read")
