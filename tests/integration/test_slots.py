"""GPUs as slots on a real Prefect API. Only the reservation is made, so no GPU is needed."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectNotFound
from prefect.testing.utilities import prefect_test_harness

from flows.slots import limits_of, reserved
from rdmd.pipeline.launch import Slot

HELD = 1.0
MEET_SECONDS = 60.0


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
