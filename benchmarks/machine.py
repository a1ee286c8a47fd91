"""The machine and the process of a measurement: the model of the processor or GPU (never the host's name), peak memory,
and the environment of a training process."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import torch

from rdmd.pipeline.launch import training_environment

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")


def default_device() -> torch.device:
    """The first GPU, or the CPU if there is no GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """The processor's model and the cores that this process may use: `AMD EPYC, 2 cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_processor()}, {cores} cores"


def device_name(device: torch.device) -> str:
    """The GPU's model, or `CPU, n threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


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


def high_water_mib(status: Path) -> float:
    """Peak MiB in `/proc/<pid>/status`; 0 for a process that has ended."""
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    return 0.0


def as_a_training_process(module: str) -> None:
    """Restart this benchmark once with the environment variables of a training process: the allocator reads them when a
    process starts."""
    wanted = training_environment()
    if any(name not in os.environ for name in wanted):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], wanted | os.environ)


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
