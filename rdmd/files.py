"""Write files whole or not at all: under a temporary name in the same folder, then renamed.

A process that is killed leaves its temporary files. The next process that writes into the folder removes them.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PART, OLD = ".part", ".old"
# Names of `tempfile` with the prefix and the suffixes that are given here.
# Between the making of a temporary file and the lock on it, a young age protects it.
_YOUNG_SECONDS = 2.0
_TEMPORARY = re.compile(rf"\..+\.[a-z0-9_]{{8}}({re.escape(PART)}|{re.escape(OLD)})")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to `path` when the block ends well, remove it otherwise."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path.parent.resolve())
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        os.close(handle)
        temporary = Path(name)
        try:
            with _in_use(temporary):
                with _asking_the_system(temporary):
                    yield temporary
                temporary.chmod(0o644)
                temporary.replace(path)
        except BaseException:
            # A library that failed may hold the file open; truncating it frees the space of a full disk at once.
            with contextlib.suppress(OSError):
                os.truncate(temporary, 0)
            raise
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes the place of `path` when the block ends well."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path.parent.resolve())
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART))
        try:
            with _in_use(temporary):
                yield temporary
                temporary.chmod(0o755)
                if path.exists():
                    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=OLD))
                    with _in_use(old):
                        path.rename(old / "old")
                        temporary.rename(path)
                        shutil.rmtree(old)
                else:
                    temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _in_use(temporary: Path) -> Iterator[None]:
    """Hold the system's lock on a temporary file or folder: the system releases it however this process ends."""
    handle = os.open(temporary, os.O_RDONLY)
    try:
        # Where the file system has no such locks, `_remove_left` cannot take one either and leaves everything.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@cache
def _remove_left(folder: Path) -> None:
    """Remove the temporary files in `folder` that no process holds; once in a process, since listing takes time."""
    # A failure here must not stop the writing.
    with contextlib.suppress(OSError):
        for left in [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]:
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime < _YOUNG_SECONDS:
                    continue
                handle = os.open(left, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _put_back(left)
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                finally:
                    os.close(handle)


def _put_back(left: Path) -> None:
    """Give a folder its place again that was moved aside by a process killed before the new folder stood there."""
    replaced = left.with_name(left.name.removeprefix(".").rsplit(".", 2)[0])
    if left.suffix == OLD and not replaced.exists():
        (left / "old").rename(replaced)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an OSError name the file that was to be written, `path`, not a temporary name."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        parts = Path(error.filename2 or error.filename or path).parts
        inside = [i for i, part in enumerate(parts) if part.startswith(f".{path.name}.") and part.endswith(PART)]
        named = path.joinpath(*parts[inside[0] + 1 :]) if inside else Path(*parts)
        raise OSError(error.errno, os.strerror(error.errno), str(named)) from error


@contextlib.contextmanager
def _asking_the_system(temporary: Path) -> Iterator[None]:
    """If a library failed to write, write a little more. torch and safetensors raise their own errors for a full disk;
    the system's own error, which names the cause, is raised instead."""
    try:
        yield
    except OSError:
        raise
    except Exception:
        with temporary.open("ab", buffering=0) as file:
            # The first write may fill the rest of the disk without an error.
            for _ in range(2):
                file.write(bytes(2**20))
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON with a stable layout: the same value gives the same bytes. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, the input of fingerprints."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
