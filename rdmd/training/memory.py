"""How much memory is free, measured."""

import os
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that a new allocation on `device` could take: of the GPU, or of this machine and the container it is in."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_of_the_machine(), _of_the_container())


def _of_the_machine() -> int:
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 2**10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_the_container() -> int:
    """What its control group leaves (version 2), the files' cache counted as free; no bound where there is none."""
    try:
        most = (_CGROUP / "memory.max").read_text(encoding="utf-8").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="utf-8"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
        return 2**63 if most == "max" else max(0, int(most) - used + int(stat["file"]))
    except (OSError, ValueError, KeyError):
        return 2**63
