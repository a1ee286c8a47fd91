"""What training draws batches from: a domain's split, resident on the device, or fresh noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rdmd.domains.pixels import to_unit
from rdmd.domains.shards import read_split


class Source(Protocol):
    """Gives batches in the range that networks see."""

    def batch(self, n: int, rng: torch.Generator) -> Tensor:
        """n samples, float32, a function of rng alone."""


@dataclass(frozen=True)
class FreshNoise:
    """N(0, std^2 I), drawn anew for every batch: the source of DMD, of which no two steps see the same sample."""

    sample_shape: tuple[int, ...]
    std: float

    def batch(self, n: int, rng: torch.Generator) -> Tensor:
        """n draws of `sample_shape`, on rng's device."""
        return self.std * torch.randn(n, *self.sample_shape, generator=rng, device=rng.device)


@dataclass(frozen=True)
class ResidentDomain:
    """All samples of one split on the device: uint8 (N, 3, H, W) images or float32 (N, 2) points."""

    data: Tensor

    @staticmethod
    def load(shards: Path, split: str, device: torch.device) -> "ResidentDomain":
        """Read a split of a domain's shards. Raises UserError for missing or damaged shards."""
        return ResidentDomain(read_split(shards, split).data.to(device))

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, n: int, rng: torch.Generator) -> Tensor:
        """n samples with replacement: images as float32 in [-1, 1], points as they are. A function of rng alone."""
        return self.take(torch.randint(len(self.data), (n,), generator=rng, device=self.data.device))

    def take(self, index: Tensor) -> Tensor:
        """The samples at `index`, in the range that networks see."""
        chosen = self.data[index]
        return to_unit(chosen) if chosen.dtype == torch.uint8 else chosen
