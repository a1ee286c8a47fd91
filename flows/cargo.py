"""Files on their way to the nodes of a cluster, by content: each travels once a node, and is checked there."""

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import ray

from rdmd.errors import UserError
from rdmd.files import replacing, sha256_of

NODE_FOLDER = "RDMD_NODE_FOLDER"


class Cargo:
    """Files by where they go, each with its SHA-256 and the object of Ray's store that holds its bytes.

    No dataclass: Prefect looks for references in those among a task's parameters, and would fetch every one.
    """

    def __init__(self, contents: "dict[Path, tuple[str, ray.ObjectRef]]") -> None:
        self._contents = contents

    def digest(self) -> dict[str, str]:
        """The SHA-256 of every file by where it goes."""
        return {str(path): sha256 for path, (sha256, _) in self._contents.items()}

    def unpack(self, folder: Path) -> None:
        """Put the files below `folder`, fetching what this node has not had before. Raises UserError if what arrives
        is not what was sent."""
        for path, (sha256, reference) in self._contents.items():
            kept = node_folder() / "inputs" / sha256[:2] / sha256
            if not kept.exists():
                with replacing(kept) as temporary:
                    temporary.write_bytes(ray.get(reference))
                    if sha256_of(temporary) != sha256:
                        raise UserError(f"{path} changed on its way to a node of the cluster; repeat the command.")
            to = folder / path
            to.parent.mkdir(parents=True, exist_ok=True)
            _link(kept, to)


class Hold:
    """What the driver has put into Ray's store, each file once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._put: dict[tuple[Path, int, int], tuple[str, ray.ObjectRef]] = {}

    def cargo(self, files: dict[Path, Path]) -> Cargo:
        """Files of this machine, by where they go on a node."""
        return Cargo({to: self._content(file) for to, file in files.items()})

    def _content(self, file: Path) -> "tuple[str, ray.ObjectRef]":
        state = file.stat()
        key = (file.resolve(), state.st_mtime_ns, state.st_size)
        with self._lock:
            if key not in self._put:
                self._put[key] = (sha256_of(file), ray.put(file.read_bytes()))
            return self._put[key]


def node_folder() -> Path:
    """This node's own folder: what RDMD_NODE_FOLDER says where `ray start` was called, or ~/.cache/rdmd."""
    given = os.environ.get(NODE_FOLDER)
    return Path(given) if given else Path.home() / ".cache" / "rdmd"


@contextlib.contextmanager
def task_folder() -> Iterator[Path]:
    """A folder of this node for the length of one task."""
    node_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="task-", dir=node_folder(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _link(kept: Path, to: Path) -> None:
    try:
        os.link(kept, to)
    except OSError:
        shutil.copyfile(kept, to)
