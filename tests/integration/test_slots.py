"""GPUs as slots on a real Prefect API. Only the reservation is made, so no GPU is needed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectNotFound
from prefect.testing.utilities import prefect_test_harness

from flows.device_pool import limits_of, reserved
from flows.server import free_stale_slots, slots_in_use
from rdmd.pipeline.launch import Slot
from tests.conftest import ROOT

HELD = 1.0
MEET_SECONDS = 60.0
# The server of a second run starts within 90 s, and the slot is free by then.
START_SECONDS = 150.0
# Holds a GPU's slot as a stage of `make repro` does.
HOLD = """
import sys, time
from flows.server import wait_for_api
from flows.device_pool import reserved
from rdmd.pipeline.launch import Slot
wait_for_api()
with reserved(Slot("cuda", (0,), 1)):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture(scope="module", autouse=True)
def harness() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


def spans(slots: list[Slot]) -> list[tuple[float, float]]:
    """When each slot was held, all of them asked for at once and held for a second."""

    def hold(slot: Slot) -> tuple[float, float]:
        with reserved(slot):
            begun = time.monotonic()
            time.sleep(HELD)
            return begun, time.monotonic()

    with ThreadPoolExecutor(len(slots)) as executor:
        return sorted(executor.map(hold, slots))


def all_at_once(slots: list[Slot]) -> None:
    """Hold all slots at the same time; a broken barrier is raised where they wait for each other."""
    barrier = threading.Barrier(len(slots))

    def meet(slot: Slot) -> None:
        with reserved(slot):
            barrier.wait(MEET_SECONDS)

    with ThreadPoolExecutor(len(slots)) as executor:
        list(executor.map(meet, slots))


def test_two_runs_never_hold_one_gpu_and_its_limit_is_made():
    # A run of two GPUs and a run of one of them.
    first, second = spans([Slot("cuda", (0, 1), 1), Slot("cuda", (1,), 1)])
    assert first[1] <= second[0]
    with get_client(sync_client=True) as client:
        for name in limits_of(Slot("cuda", (0, 1), 1)):
            assert client.read_global_concurrency_limit_by_name(name).limit == 1


def test_runs_on_two_gpus_go_at_once():
    all_at_once([Slot("cuda", (2,), 1), Slot("cuda", (3,), 1)])


def test_a_limit_on_the_cpu_is_heeded_where_somebody_made_one():
    (name,) = limits_of(Slot("cpu", (), 1))
    all_at_once([Slot("cpu", (), 1)] * 2)
    with get_client(sync_client=True) as client:
        with pytest.raises(ObjectNotFound):
            client.read_global_concurrency_limit_by_name(name)
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    first, second = spans([Slot("cpu", (), 1)] * 2)
    assert first[1] <= second[0]


def test_the_limit_is_of_the_gpu_that_the_process_sees(monkeypatch: pytest.MonkeyPatch):
    all_of_them = limits_of(Slot("cuda", (5,), 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert limits_of(Slot("cuda", (1,), 1)) == all_of_them


def hold(project: Path, seconds: float) -> "subprocess.Popen[str]":
    """`make repro` in `project`, of which all that runs is a stage that holds a GPU's slot."""
    dropped = {"PREFECT_API_URL", "PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL", "DVC_ROOT"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.server", sys.executable, "-c", HOLD, str(seconds)], cwd=project, text=True,
        env=environment | {"PYTHONPATH": str(ROOT), "RDMD_COLD": "1"}, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_a_killed_run_leaves_its_slot_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As after a power cut: the run, its stage and its server are all gone at once."""
    run = hold(tmp_path, 600)
    assert run.stdout is not None
    assert run.stdout.readline() == "held\n"
    for process in [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]:
        process.kill()
    run.wait()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    leases = tmp_path / ".prefect" / "concurrency_leases"
    # Kept in files, so that a server that is not private frees the slot too, when the lease expires.
    (lease,) = [file for file in leases.glob("*.json") if file.name != "expirations.json"]
    with slots_in_use():
        assert free_stale_slots() == []  # another process might hold it

    again = hold(tmp_path, 0)
    try:
        assert again.communicate(timeout=START_SECONDS)[0] == "held\n"
    finally:
        for process in [*psutil.Process(again.pid).children(recursive=True)] if again.poll() is None else []:
            process.kill()
        again.kill()
    assert not lease.exists()  # it would free the slot of a later run
