"""What training draws batches from: a domain's split, resident on the device or streamed, or fresh noise."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from rdmd.domains.manifest import read_manifest
from rdmd.domains.samples import Split
from rdmd.domains.shards import read_split
from rdmd.training.draws import drawn, seen_by_networks
from rdmd.training.memory import free_memory
from rdmd.training.random import StepRandom
from rdmd.training.streaming import StreamedDomain

# Of the memory that is free before the networks are made: the rest is theirs, and the other domain's.
RESIDENT_SHARE = 0.25


class Source(Protocol):
    """Gives batches in the range that networks see."""

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """n samples, float32, on the device: a function of (seed, rank, step, name)."""


@dataclass(frozen=True)
class FreshNoise:
    """N(0, std^2 I), drawn anew for every batch: the source of DMD, of which no two steps see the same sample."""

    sample_shape: tuple[int, ...]
    std: float

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """n draws of `sample_shape`."""
        rng = random.stream(name)
        return self.std * torch.randn(n, *self.sample_shape, generator=rng, device=rng.device)


@dataclass(frozen=True)
class ResidentDomain:
    """All samples of one split on the device: uint8 (N, 3, H, W) images or float32 (N, 2) points."""

    data: Tensor

    @staticmethod
    def load(shards: Path, split: Split, device: torch.device) -> "ResidentDomain":
        """Read a split of a domain's shards. Raises UserError for missing or damaged shards."""
        return ResidentDomain(read_split(shards, split).data.to(device))

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """n samples with replacement: images as float32 in [-1, 1], points as they are."""
        index = drawn(len(self.data), n, random, name)
        return seen_by_networks(self.data[index.to(self.data.device, non_blocking=True)])


def open_domain(
    shards: Path, split: Split, accelerator: Accelerator, kept: Literal["auto", "resident", "streamed"]
) -> ResidentDomain | StreamedDomain:
    """A split of a domain on the accelerator's device, or, where it is too large for that, on disk.

    `auto` keeps it on the device if it takes at most a quarter of the memory that is free there, shared, on a CPU, by
    the processes of the run. Raises UserError for missing or damaged shards.
    """
    device = accelerator.device
    if kept == "auto":
        sharing = 1 if device.type == "cuda" else accelerator.num_processes
        size, room = stored_bytes(shards, split), int(RESIDENT_SHARE * free_memory(device) / sharing)
        kept = "resident" if size <= room else "streamed"
        if kept == "streamed":
            print(f"{shards} takes {size / 2**20:.0f} MiB and {room / 2**20:.0f} MiB are free for it: it is read from "
                  "disk as it is needed", file=sys.stderr)
    if kept == "streamed":
        return StreamedDomain.open(shards, split, device)
    return ResidentDomain.load(shards, split, device)


def stored_bytes(shards: Path, split: Split) -> int:
    """What the samples of a split take in memory. Raises UserError if there is no such domain."""
    manifest = read_manifest(shards)
    return manifest.counts.get(split, 0) * int(np.prod(manifest.sample_shape)) * np.dtype(manifest.dtype).itemsize
