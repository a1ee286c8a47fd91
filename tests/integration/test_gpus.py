"""GPUs that processes share, by real locks. Only the reservation is made, so no GPU is needed."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rdmd import config
from rdmd.pipeline.launch import Slot, gpu_name
from rdmd.pipeline.training import SlotPool
from tests.conftest import ROOT

MEET_SECONDS = 20.0
# Holds the first GPU until it is killed.
HOLD = """
import time
from rdmd.pipeline.training import _Gpu
with _Gpu("0").reserved():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test alone, here and in its child processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def pool(monkeypatch: pytest.MonkeyPatch, *groups: tuple[int, ...]) -> SlotPool:
    """A pool with a slot for each group of GPUs."""
    made = [Slot("cuda", gpus, 1) for gpus in groups]
    monkeypatch.setattr("rdmd.pipeline.training.slots", lambda launch: made)
    return SlotPool(config.Launch())


def span(pool: SlotPool) -> tuple[float, float]:
    """When a slot was held, for half a second."""
    with pool.lend():
        begun = time.monotonic()
        time.sleep(0.5)
        return begun, time.monotonic()


def meet(pools: list[SlotPool]) -> None:
    """Hold a slot of every pool at the same time; a broken barrier is raised where they wait for each other."""
    barrier = threading.Barrier(len(pools))

    def hold(pool: SlotPool) -> None:
        with pool.lend():
            barrier.wait(MEET_SECONDS)

    with ThreadPoolExecutor(len(pools)) as executor:
        list(executor.map(hold, pools))


def test_two_pools_never_use_one_gpu_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    # A run of two GPUs and a run of one of them.
    pools = [pool(monkeypatch, (0, 1)), pool(monkeypatch, (1,))]
    with ThreadPoolExecutor(2) as executor:
        first, second = sorted(executor.map(span, pools))
    assert first[1] <= second[0]


def test_other_gpus_and_slots_of_one_gpu_in_one_pool_are_used_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    meet([pool(monkeypatch, (2,)), pool(monkeypatch, (3,))])
    # As with `launch.parallel` above the number of GPUs.
    shared = pool(monkeypatch, (0,), (0,))
    meet([shared, shared])
    # It is free again after both.
    meet([pool(monkeypatch, (0,))])


def test_a_killed_process_frees_its_gpu(monkeypatch: pytest.MonkeyPatch):
    holder = subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(span, pool(monkeypatch, (0,)))
            time.sleep(1.0)
            assert not waiting.done()
            killed = time.monotonic()
            holder.kill()
            assert waiting.result(MEET_SECONDS)[0] >= killed
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_belongs_to_the_gpu_that_the_process_sees(monkeypatch: pytest.MonkeyPatch):
    assert gpu_name(5) == "5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert gpu_name(1) == "5"
