"""GPUs of this machine, each lent to one flow at a time, by a lock file for each GPU in the system's temporary folder.

A lock holds across checkouts, users and Prefect servers, and the system frees it when its process dies.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from rdmd import config
from rdmd.pipeline.launch import Slot, slots
from rdmd.pipeline.training import SlotPool


class DevicePool(SlotPool):
    """The slots of this machine. No two pools, in whatever processes, use a GPU at the same time."""

    def __init__(self, launch: config.Launch) -> None:
        super().__init__(launch)
        self._gpus = {gpu: _Gpu(gpu_name(gpu)) for slot in slots(launch) for gpu in slot.gpus}

    @contextlib.contextmanager
    def lend(self) -> Iterator[Slot]:
        """Wait for a slot whose GPUs no other pool uses, and give it back afterwards."""
        with super().lend() as slot, contextlib.ExitStack() as stack:
            # In one order, so that two runs never wait for each other.
            for gpu in sorted(slot.gpus):
                stack.enter_context(self._gpus[gpu].reserved())
            yield slot


class _Gpu:
    """The lock of a GPU, which several slots of one pool share."""

    def __init__(self, name: str) -> None:
        self._name, self._mutex = name, threading.Lock()
        # It counts how often it is acquired. Everybody may write to it, since users share GPUs.
        self._lock = FileLock(Path(tempfile.gettempdir()) / f"rdmd-gpu-{name}.lock", mode=0o666, thread_local=False)

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        with self._mutex:
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                with contextlib.suppress(MissingContextError):
                    get_run_logger().info(f"waiting for GPU {self._name}, which another flow uses")
                self._lock.acquire(poll_interval=1.0)
        try:
            yield
        finally:
            with self._mutex:
                self._lock.release()


def gpu_name(gpu: int) -> str:
    """The name by which the system knows the GPU that is the `gpu`-th for this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[gpu].strip() if visible else str(gpu)
