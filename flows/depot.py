"""Where the runs of a cluster leave what they have so far: an actor on the driver's node, which outlives the others.

A run that lost its node goes on elsewhere from the checkpoint that lies here, and the driver fetches what is new. It
keeps files rather than bytes, since checkpoints of a sweep may be larger than memory.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path

from rdmd.files import replacing
from rdmd.training.folder import RunFolder

Files = dict[str, bytes]


class Depot:
    """The files of runs by their fingerprints, and which runs are to stop. Ray calls one method at a time."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryDirectory(prefix="rdmd-depot-")
        self._new: dict[str, set[str]] = {}
        self._begun: set[str] = set()
        self._stopping: set[str] = set()

    def open(self, run: str, files: Files) -> None:
        """Expect a run, which goes on from `files` of an earlier attempt."""
        self._write(run, files)
        self._new[run] = set()
        self._begun.discard(run)
        self._stopping.discard(run)

    def begin(self, run: str) -> Files | None:
        """What a node that begins or takes over a run goes on from; None if the run is to stop."""
        if run in self._stopping:
            return None
        self._begun.add(run)
        return self._read(run, self._names(run))

    def post(self, run: str, files: Files) -> bool:
        """Take what a run has made since its last post; says whether it is to stop."""
        self._write(run, files)
        self._new[run] |= set(files)
        return run in self._stopping

    def news(self, run: str) -> Files:
        """What was posted since the last call."""
        names, self._new[run] = self._new[run], set()
        return self._read(run, names)

    def stop(self, run: str) -> bool:
        """Tell a run at its next post to stop; says whether it has begun anywhere."""
        self._stopping.add(run)
        return run in self._begun

    def close(self, run: str) -> None:
        """Forget a run, which is over."""
        shutil.rmtree(self._folder(run), ignore_errors=True)

    def _folder(self, run: str) -> Path:
        return Path(self._kept.name) / run

    def _names(self, run: str) -> set[str]:
        folder = self._folder(run)
        return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}

    def _read(self, run: str, names: set[str]) -> Files:
        return {name: (self._folder(run) / name).read_bytes() for name in sorted(names)}

    def _write(self, run: str, files: Files) -> None:
        write_files(self._folder(run), files)


def write_files(folder: Path, files: Files) -> None:
    """Put files below a folder, each whole; `result.json`, which says that a run is finished, is the last."""
    result = RunFolder(folder).result_file.name
    for name in sorted(files, key=lambda name: (name == result, name)):
        with replacing(folder / name) as temporary:
            temporary.write_bytes(files[name])


def read_files(folder: Path, names: list[str]) -> Files:
    """Those of the named files that are there."""
    found: Files = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = (folder / name).read_bytes()
    return found
