"""Devices as slots that flows of one machine share, by Prefect's global concurrency limits: never two runs on one.

Every GPU is a limit of its own, `rdmd-gpu-<machine>-<number>`: one count for all of them would bound how many runs
there are, but not on which GPU. CPUs have a limit only where somebody made one, `rdmd-cpu-<machine>`.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterator

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.server import SLOT_PREFIX, slots_in_use
from rdmd import config
from rdmd.pipeline.launch import Slot, slots
from rdmd.pipeline.training import SlotPool


class SharedSlots(SlotPool):
    """The machine's slots, lent to one run at a time each, whichever flow it belongs to."""

    def __init__(self, launch: config.Launch) -> None:
        super().__init__(launch)
        # More than one only where `launch.parallel` asks for more runs than there are GPUs.
        every = slots(launch)
        self._runs_on_each = max(1, -(-len(every) // len({slot.gpus for slot in every})))

    @contextlib.contextmanager
    def lend(self) -> Iterator[Slot]:
        """Wait for a slot that no other run uses, and give it back afterwards."""
        with super().lend() as slot, reserved(slot, self._runs_on_each):
            yield slot


@contextlib.contextmanager
def reserved(slot: Slot, runs_on_each: int = 1) -> Iterator[None]:
    """Hold the limits of a slot's devices, which are made if need be for `runs_on_each` runs."""
    names = limits_of(slot)
    if slot.gpus:
        for name in names:
            _make(name, runs_on_each)
    else:
        names = [name for name in names if _exists(name)]
    if not names:
        yield
        return
    # Without `strict` a limit that is missing would only warn, and all runs would go at once.
    with slots_in_use(), concurrency(names, occupy=1, strict=True):
        yield


def limits_of(slot: Slot) -> list[str]:
    """The names of the limits of a slot's devices on this machine."""
    machine = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")
    if not slot.gpus:
        return [f"{SLOT_PREFIX}cpu-{machine}"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(max(slot.gpus) + 1)]
    return [f"{SLOT_PREFIX}gpu-{machine}-{names[gpu].strip()}" for gpu in slot.gpus]


def _exists(name: str) -> bool:
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            return False
        return True


def _make(name: str, limit: int) -> None:
    if _exists(name):
        return
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
