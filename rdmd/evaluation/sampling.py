"""Which samples of a split are evaluated."""

import torch
from torch import Tensor


def sample_of(samples: Tensor, count: int, seed: int) -> Tensor:
    """`count` samples in a random order, drawn without replacement; all of them if there are no more than that.

    Drawn rather than the first ones, and shuffled, since a split may lie sorted: so the first few are fit to be shown.
    A function of (number of samples, count, seed).
    """
    rng = torch.Generator().manual_seed(seed)
    return samples[torch.randperm(len(samples), generator=rng)[:count]]
