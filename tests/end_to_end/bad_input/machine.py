"""Full and read-only disks, devices that are not there, stores that do not answer, reports that do not exist yet."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bad_input.models import IMAGE, IMAGES, TRANSLATE
from bad_input.row import Row, edited, nothing, written
from rdmd.pipeline.launch import gpu_count
from tests.conftest import fresh_store

KIB = 2**10
DEAD = "http://127.0.0.1:1"

# --- disks --------------------------------------------------------------------------------------------------


def mounted(folder: str, options: str) -> AbstractContextManager[None]:
    """A file system in memory on `folder`, which keeps its files. Skips the test where that is not allowed."""

    @contextlib.contextmanager
    def disk() -> Iterator[None]:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        kept = Path("kept")
        place.rename(kept)
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a small disk")
        try:
            shutil.copytree(kept, place, dirs_exist_ok=True)
            shutil.rmtree(kept)
            yield
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)

    return disk()


def full(folder: str, room: int) -> Callable[[], AbstractContextManager[None]]:
    """`folder` on a disk with `room` KiB left."""

    @contextlib.contextmanager
    def disk() -> Iterator[None]:
        with mounted(folder, "size=1m"):
            free = shutil.disk_usage(folder).free - room * KIB
            (Path(folder) / "filler").write_bytes(bytes(free))
            yield

    return disk


@contextlib.contextmanager
def read_only_output() -> Iterator[None]:
    """The folder `out`, into which nobody may write; permissions do not stop root, a disk does."""
    if os.geteuid() == 0:
        with mounted("out", "size=1m"):
            subprocess.run(["mount", "-o", "remount,ro", "out"], check=True)
            yield
        return
    Path("out").mkdir()
    Path("out").chmod(0o555)
    yield
    Path("out").chmod(0o755)


@contextlib.contextmanager
def small_files_only() -> Iterator[None]:
    """A limit of 4 KiB on every file written, as quotas and batch systems set."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * KIB, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = compiled


FREE = "nothing was lost: free some space and repeat the command"
DISKS = [
    Row("a full disk for shards", full("data/shards", 24), "rdmd preprocess source", "data/shards/source", FREE),
    Row("a full disk for images", full("out", 16), f"{TRANSLATE} {IMAGES} out", "out/", FREE, ("out/*.png",)),
    Row(
        "a full disk for a checkpoint",
        full("runs", 40),
        "rdmd train-teacher",
        "checkpoint.pt: No space left on device",
        FREE,
        ("runs/*/run.json", "runs/*/log.txt", "runs/*/error.txt", "runs/*"),
        apart=True,
    ),
    Row(
        "a limit on the size of files",
        small_files_only,
        "rdmd preprocess source",
        "data/shards/source",
        "raise this user's limit on the size of a file",
    ),
    Row(
        "an output that is read-only",
        read_only_output,
        f"{TRANSLATE} {IMAGE} out/a.png",
        "out/a.png",
        "make it readable and writable",
    ),
    Row(
        "a file where shards belong",
        written("data/shards", "kept"),
        "rdmd preprocess source",
        "data/shards",
        "a file lies where a folder belongs",
    ),
    Row(
        "a folder where a file belongs",
        lambda: Path("out.png/in").mkdir(parents=True),
        f"rdmd convert-edm {IMAGE} out.png",
        f"{IMAGE} is not",
        "name another",
    ),
]

# --- devices ------------------------------------------------------------------------------------------------

DEVICES = (
    []
    if gpu_count()
    else [
        Row(
            "--device cuda without a GPU",
            nothing,
            f"{TRANSLATE} {IMAGE} out.png --device cuda",
            "the device is cuda",
            "use cpu",
        ),
        Row(
            "launch.device cuda for a teacher",
            edited("launch:\n", "launch:\n  device: cuda\n"),
            "rdmd train-teacher",
            "launch.device is cuda",
            "set it to auto or cpu",
        ),
        Row(
            "launch.device cuda for a sweep",
            edited("launch:\n", "launch:\n  device: cuda\n"),
            "rdmd distill",
            "launch.device is cuda",
            "set it to auto or cpu",
        ),
    ]
)

# --- stores -------------------------------------------------------------------------------------------------

NAMED = f"rdmd translate models:/rdmd-tiny@champion {IMAGE} out.png"
TEXT = {"MLFLOW_TRACKING_URI": "sqlite:///notes.txt"}


def empty_store() -> None:
    """The project's own store, with nothing registered."""
    fresh_store(Path("mlflow/store/mlflow.db"))


STORES = [
    Row(
        "a model before any is registered", nothing, NAMED, "mlflow/store/mlflow.db does not exist", "run `make repro`"
    ),
    Row(
        "a model that is not registered",
        empty_store,
        NAMED,
        "models:/rdmd-tiny@champion cannot be fetched",
        "list what is registered",
    ),
    Row(
        "serving a model that is not registered",
        empty_store,
        "rdmd serve --model models:/rdmd-tiny/7",
        "models:/rdmd-tiny/7 cannot be fetched",
        "list what is registered",
    ),
    Row(
        "a store that does not answer",
        nothing,
        NAMED,
        f"models:/rdmd-tiny@champion cannot be fetched from {DEAD}",
        "correct MLFLOW_TRACKING_URI",
        environment={"MLFLOW_TRACKING_URI": DEAD},
    ),
    Row(
        "a store of no kind",
        nothing,
        NAMED,
        "models:/rdmd-tiny@champion cannot be fetched from nosuch://x",
        "correct MLFLOW_TRACKING_URI",
        environment={"MLFLOW_TRACKING_URI": "nosuch://x"},
    ),
    Row(
        "a store that is a text",
        written("notes.txt", "These are notes.\n" * 99),
        NAMED,
        "notes.txt cannot be used",
        "move it aside, or correct MLFLOW_TRACKING_URI",
        environment=TEXT,
    ),
]

# A process of its own takes seconds to import MLflow and Prefect.
FLOWS = [
    Row(
        "a stage with a wrong key",
        edited("distill:", "distil:"),
        "python -m flows.stages.training distill",
        "unknown key `distil`",
        "did you mean `distill`?",
    ),
    Row(
        "a stage without Prefect's server",
        nothing,
        "stage teacher",
        f"Prefect's server at {DEAD}/api",
        "correct PREFECT_API_URL",
        environment={"PREFECT_API_URL": f"{DEAD}/api"},
    ),
    Row(
        "a stage whose store does not answer",
        nothing,
        "stage teacher",
        f"the MLflow store {DEAD} cannot be used",
        "correct MLFLOW_TRACKING_URI",
        environment={"MLFLOW_TRACKING_URI": DEAD},
    ),
    Row(
        "a stage on a cluster that does not answer",
        edited("launch:\n", "launch:\n  runner: {name: ray, address: 127.0.0.1:1}\n"),
        "python -m flows.stages.training teacher",
        "no Ray cluster of this version answers at 127.0.0.1:1",
        "set launch.runner to local",
        ("mlflow", "mlflow/store", "mlflow/store/lock", "mlflow/store/mlflow.db"),
    ),
    Row(
        "a stage whose store is a text",
        written("notes.txt", "These are notes.\n" * 99),
        "stage teacher",
        "notes.txt cannot be used",
        "move it aside",
        environment=TEXT,
    ),
]

# --- before anything has run --------------------------------------------------------------------------------


@contextlib.contextmanager
def taken_port() -> Iterator[None]:
    """Somebody listens where `rdmd serve` would: we, or whoever does already."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", 5001)))
        yield


PORTS = [
    Row(
        "a port that is taken",
        taken_port,
        "rdmd serve",
        "the server cannot listen on 127.0.0.1 port 5001",
        "give another --port",
    ),
    Row("a port that is none", nothing, "rdmd serve --port 99999", "port 99999", "give another --port"),
    Row("a port that is none for the demo", nothing, "rdmd demo --port 99999", "port 99999", "give another --port"),
    Row("a host that is none", nothing, "rdmd serve --host 203.0.113.1", "203.0.113.1", "give another --port"),
]

REPORTS = [
    Row("a summary of nothing", nothing, "rdmd summary", "reports/metrics.json does not exist yet", "run `make repro`"),
    Row(
        "a summary of something else",
        written("reports/metrics.json", "{}"),
        "rdmd summary",
        "reports/metrics.json",
        "make it again with `rdmd evaluate`",
    ),
    Row("serving nothing", nothing, "rdmd serve", "reports/registry.json does not exist", "run `make repro`"),
    Row(
        "serving something else",
        written("reports/registry.json", "[]"),
        "rdmd serve",
        "reports/registry.json is damaged",
        "`dvc repro -f register`",
    ),
]

ROWS = [*DISKS, *DEVICES, *STORES, *FLOWS, *PORTS, *REPORTS]
