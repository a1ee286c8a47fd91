"""Which samples a batch has, and as what networks see them: the same wherever the samples are kept."""

import torch
from torch import Tensor

from rdmd.domains.pixels import to_unit
from rdmd.training.random import StepRandom


def drawn(size: int, n: int, random: StepRandom, name: str) -> Tensor:
    """n indices below `size`, drawn with replacement, int64 on the CPU: a function of (seed, rank, step, name)."""
    return torch.randint(size, (n,), generator=random.host_stream(name))


def seen_by_networks(stored: Tensor) -> Tensor:
    """uint8 pictures as float32 in [-1, 1]; anything else as it is."""
    return to_unit(stored) if stored.dtype == torch.uint8 else stored
