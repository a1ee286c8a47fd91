"""Peak memory of a process."""

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


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
