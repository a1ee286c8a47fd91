"""The sources of training batches: the split of a domain, or fresh noise."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rdmd import config
from rdmd.data.augmentation import flipped_and_shifted
from rdmd.data.samples import Split
from rdmd.data.sampling import StepRandom, drawn, seen_by_networks
from rdmd.data.shards import trained_array
from rdmd.errors import UserError

# Share of the free GPU memory that one domain may take: the networks and the other domain need the rest.
RESIDENT_SHARE = 0.25


class Source(Protocol):
    """Gives batches in the range that networks see."""

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """n samples, float32, on the device: a function of (seed, rank, step, name)."""

    def distinct(self, n: int, random: StepRandom, name: str) -> Tensor:
        """As `batch`, without replacement: all samples where there are fewer than n."""


@dataclass(frozen=True)
class FreshNoise:
    """N(0, std^2 I), drawn anew for every batch: the source of DMD."""

    sample_shape: tuple[int, ...]
    std: float

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """n draws of `sample_shape`."""
        rng = random.stream(name)
        return self.std * torch.randn(n, *self.sample_shape, generator=rng, device=rng.device)

    distinct = batch


@dataclass(frozen=True)
class DomainView:
    """All samples of one split, on the GPU or memory-mapped: images (N, H, W, C), uint8 or uint16, float16 latents
    (N, h, w, C) or float32 points (N, 2)."""

    stored: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.stored)

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """n samples with replacement, float32: images (n, C, H, W) in [-1, 1], latents (n, C, h, w), points (n, 2)."""
        return self._at(drawn(len(self.stored), n, random, name))

    def distinct(self, n: int, random: StepRandom, name: str) -> Tensor:
        """As `batch`, without replacement: all samples, in random order, where there are fewer than n."""
        return self._at(torch.randperm(len(self.stored), generator=random.host_stream(name))[:n])

    def _at(self, index: Tensor) -> Tensor:
        # torch has few functions for uint16, so that its bits are picked as int16.
        deep = self.stored.dtype == torch.uint16
        stored = self.stored.view(torch.int16) if deep else self.stored
        samples = stored[index.to(stored.device, non_blocking=True)].to(self.device, non_blocking=True)
        samples = samples.view(torch.uint16) if deep else samples
        return seen_by_networks(samples.permute(0, 3, 1, 2).contiguous() if samples.ndim == 4 else samples)


@dataclass(frozen=True)
class Varied:
    """A source of images whose batches are flipped and shifted, as `rdmd.config.Varied` says."""

    source: Source
    flip: bool
    shift: int

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        """As the source's, (n, C, H, W), varied."""
        images = self.source.batch(n, random, name)
        return flipped_and_shifted(images, self.flip, self.shift, random.stream(f"{name} varied"))

    def distinct(self, n: int, random: StepRandom, name: str) -> Tensor:
        """The source's own: evaluations see images as they are."""
        return self.source.distinct(n, random, name)


def varied(source: Source, settings: config.Varied, sample_shape: tuple[int, ...]) -> Source:
    """The source, with its images varied as the settings of the training say. Raises UserError if it has points."""
    if not settings.flip and not settings.shift:
        return source
    if len(sample_shape) == 1:
        raise UserError("`flip` and `shift` vary images, and the samples are points; remove them.")
    return Varied(source, settings.flip, settings.shift)


# The folder of a domain, a split of it, and a device -> what training draws batches from, such as `open_domain`.
OpenDomain = Callable[[Path, Split, torch.device], Source]


def open_domain(shards: Path, split: Split, device: torch.device) -> DomainView:
    """A split of a domain for training on `device`.

    It is memory-mapped, so the system's file cache decides how much of it is in memory. Raises UserError for missing
    or damaged shards.
    """
    return view_of(torch.from_numpy(trained_array(shards, split)), device)


def view_of(stored: Tensor, device: torch.device) -> DomainView:
    """Samples for training on `device`. A GPU takes all of them where they fit into a quarter of its free memory."""
    if device.type == "cuda" and stored.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        stored = stored.to(device)
    return DomainView(stored, device)
