"""What a machine has, as far as the warm process must know it without importing torch."""

import sys
from pathlib import Path

# Device files of NVIDIA's driver, of the same under WSL, and of AMD's.
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def without_gpu() -> bool:
    """Whether this is a Linux machine that has no driver of a GPU."""
    return sys.platform == "linux" and not any(Path(device).exists() for device in GPU_DRIVERS)
