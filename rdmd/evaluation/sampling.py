"""Which samples of a split are evaluated."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_of(samples: Tensor, count: int, seed: int) -> Tensor:
    """`count` samples in a random order, drawn without replacement; all of them if there are no more than that.

    Drawn rather than the first ones, and shuffled, since a split may lie sorted: so the first few are fit to be shown.
    A function of (number of samples, count, seed).
    """
    rng = torch.Generator().manual_seed(seed)
    return samples[torch.randperm(len(samples), generator=rng)[:count]]


def units_of(scans: Sequence[str] | None, total: int, count: int, seed: int) -> Tensor:
    """Which scan each sample of `sample_of(samples, count, seed)` came from, int64 (N,), numbered from 0 without gaps.

    `scans` names that of every one of the `total` samples; None if each is its own.
    """
    if scans is None:
        return torch.arange(min(count, total))
    known = {scan: number for number, scan in enumerate(dict.fromkeys(scans))}
    picked = sample_of(torch.tensor([known[scan] for scan in scans]), count, seed)
    return picked.unique(return_inverse=True)[1]


def too_few(sources: int, references: int, names: Sequence[str]) -> str:
    """That these metrics, each with what it needs, are not measured on so few samples; empty without a name."""
    return f"{sources} source and {references} target test samples are too few for {'; '.join(names)}" if names else ""
