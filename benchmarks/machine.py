"""The machine of a measurement, and the peak memory of a process on it."""

import multiprocessing
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

_CPUINFO, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")


def default_device() -> torch.device:
    """The first GPU, or the CPU if there is no GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """The processor's model and the cores that this process may use: `AMD EPYC, 2 cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_processor()}, {cores} cores"


def peak_mib(device: torch.device) -> float:
    """Peak MiB so far: allocated on the GPU, or resident in this process.

    On Linux it reads the kernel's value: that of `getrusage` includes the peak of the parent process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_peak_mib()


def resident_peak_mib() -> float:
    """Peak MiB resident in this process."""
    if _STATUS.is_file():
        return high_water_mib(_STATUS)
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def in_a_process(measure: Callable[..., Result], *arguments: object) -> Result:
    """`measure(*arguments)` in a process of its own, which has a peak memory of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(measure, *arguments).result()


def high_water_mib(status: Path) -> float:
    """Peak MiB in `/proc/<pid>/status`; 0 for a process that has ended."""
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    return 0.0


def _processor() -> str:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()
