"""Start training runs as processes of their own, follow them, and stop them with their launcher."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rdmd import config
from rdmd.errors import Interrupted, UserError
from rdmd.training.run_folder import EXIT_STOPPED, LESS_MEMORY, WATCH_STDIN, Point, Result, RunFolder

Child = subprocess.Popen[bytes]

POLL_SECONDS = 0.5
# Device files of NVIDIA's driver, of the same under WSL, and of AMD's.
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
MODULE = "rdmd.training.run"
# A stop waits for the step in progress and for a checkpoint to be written.
STOP_SECONDS = 12.0

# glibc returns freed blocks of 128 KiB and more to the system, and the next pass of a network requests them again, page
# by page. These settings keep blocks up to 32 MiB (glibc's limit), and up to 1 GiB at the end of the heap.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


@dataclass(frozen=True)
class Slot:
    """The place of a run: a kind of device, its GPUs (none on a CPU), and its share of the CPU's threads."""

    device: str
    gpus: tuple[int, ...]
    threads: int


def slots(launch: config.Launch) -> list[Slot]:
    """The slots of this machine: one for `launch.processes` GPUs, or one for `launch.threads` CPU cores.

    Raises UserError if there is no GPU but `launch.device` is cuda, or fewer GPUs than a run needs.
    """
    gpus = 0 if launch.device == "cpu" else gpu_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if launch.device == "cuda" and not gpus:
        raise UserError(
            "launch.device is cuda, but torch finds no CUDA device here; set it to auto or cpu, or see `rdmd doctor`."
        )
    if not gpus:
        n = max(1, cores // (launch.threads or cores)) if launch.parallel == "auto" else launch.parallel
        return [Slot("cpu", (), launch.threads or max(1, cores // n))] * n
    if launch.processes > gpus:
        raise UserError(f"launch.processes is {launch.processes}, but torch finds {gpus} CUDA devices; lower it.")
    groups = [tuple(range(i, i + launch.processes)) for i in range(0, gpus - launch.processes + 1, launch.processes)]
    n = len(groups) if launch.parallel == "auto" else launch.parallel
    return [Slot("cuda", groups[i % len(groups)], launch.threads or max(1, cores // n)) for i in range(n)]


def gpu_count() -> int:
    """The number of CUDA (or ROCm) devices, found without torch, whose import takes seconds, if there is no driver."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def gpu_name(gpu: int) -> str:
    """The name by which the system knows the GPU that is the `gpu`-th for this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[gpu].strip() if visible else str(gpu)


class TrainingProcesses:
    """The training processes of this one. Safe to use from several threads, one run each.

    lock_seconds: how long a run waits for another process, perhaps on another machine, to leave its folder.
    """

    def __init__(self, lock_seconds: float = 0.0) -> None:
        self._lock_seconds = lock_seconds
        self._children: set[Child] = set()
        self._stopping = threading.Event()

    def train(self, folder: RunFolder, slot: Slot, follow: Callable[[list[Point]], None]) -> Result:
        """Train a planned run to its end in a process of its own, or reuse it if it is finished.

        `follow` is called about twice a second with the new points of the run's curves (after a resume, from its
        start). Output goes to the run's `log.txt`. Raises UserError with the run's own sentence if it failed,
        Interrupted if it was stopped; whatever ends this function ends the process too, which leaves a checkpoint.
        """
        done = folder.result()
        if done is not None:
            follow(folder.curves())
            return done
        if self._stopping.is_set():
            raise Interrupted(_how_to_go_on(folder))
        run = folder.read_run()
        folder.error_file.unlink(missing_ok=True)
        with folder.log.open("ab") as log:
            child = _start(folder, slot, run.processes, self._lock_seconds, log)
        self._children.add(child)
        try:
            _follow(folder, child, follow)
        finally:
            _stop(child)
            self._children.discard(child)
        result = folder.result()
        if child.returncode == 0 and result is not None:
            return result
        if child.returncode == EXIT_STOPPED or self._stopping.is_set():
            raise Interrupted(_how_to_go_on(folder))
        if child.returncode == -signal.SIGKILL:
            raise UserError(
                f"training in {folder.path} was killed from outside, probably because memory ran out; "
                f"{LESS_MEMORY}, and repeat the command to go on."
            )
        reason = folder.error_file.read_text(encoding="utf-8") if folder.error_file.exists() else f"see {folder.log}."
        raise UserError(f"training in {folder.path} failed: {reason}")

    def stop_all(self) -> None:
        """Ask every run to write a checkpoint and end, and start no other run. Returns at once."""
        self._stopping.set()
        for child in list(self._children):
            _ask_to_stop(child)


def _how_to_go_on(folder: RunFolder) -> str:
    return f"{folder.path} was stopped; repeat the same command to go on from its checkpoint"


def _ask_to_stop(child: Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)


def _stop(child: Child) -> None:
    """End a run and its children: ask it first, so that it writes a checkpoint, then kill it."""
    if child.stdin is not None:
        child.stdin.close()
    if child.poll() is not None:
        return
    _ask_to_stop(child)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _start(folder: RunFolder, slot: Slot, processes: int, lock_seconds: float, log: IO[bytes]) -> Child:
    """Start a process in its own session; it stops when its standard input closes."""
    return subprocess.Popen(
        _command(folder, slot, processes, lock_seconds),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=_environment(slot),
        start_new_session=True,
    )


def _command(folder: RunFolder, slot: Slot, processes: int, lock_seconds: float) -> list[str]:
    threads = max(1, slot.threads // processes) if slot.device == "cpu" else slot.threads
    flags = {"--device": slot.device, "--threads": threads, "--lock-seconds": lock_seconds}
    module = ["-m", MODULE, str(folder.path), *(str(word) for pair in flags.items() for word in pair)]
    if processes == 1:
        # A launcher only adds seconds to a single process.
        return [sys.executable, *module]
    if slot.device == "cpu":
        # Without MPI, accelerate's launcher starts only one process on a CPU.
        several = ["--standalone", "--nproc-per-node", str(processes)]
        return [sys.executable, "-m", "torch.distributed.run", *several, *module]
    options = f"--num_processes {processes} --num_machines 1 --mixed_precision no --dynamo_backend no --multi_gpu"
    several = options.split()
    return [sys.executable, "-m", "accelerate.commands.launch", *several, *module]


def training_environment() -> dict[str, str]:
    """Variables that make a training process faster on this system; the user's own values take precedence."""
    return KEEP_FREED_MEMORY if platform.libc_ver()[0] == "glibc" else {}


def _environment(slot: Slot) -> dict[str, str]:
    environment = (
        training_environment()
        | os.environ
        | {
            WATCH_STDIN: "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(slot.threads),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        }
    )
    if slot.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(gpu_name, slot.gpus))
    return environment


def _follow(folder: RunFolder, child: Child, follow: Callable[[list[Point]], None]) -> None:
    seen = 0
    finished = False
    while not finished:
        finished = child.poll() is not None
        new = [point for point in folder.curves() if point.step > seen]
        if new:
            seen = new[-1].step
            follow(new)
        if not finished:
            time.sleep(POLL_SECONDS)
