"""The noise of a training step: distributions of sigma, and a batch of samples with its noise."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import repeat

import torch
from torch import Tensor

from rdmd.config import KarrasLevels, LogNormal

# (number of samples, random generator) -> sigma of shape (number of samples,), on the generator's device
NoiseDistribution = Callable[[int, torch.Generator], Tensor]


def lognormal(mean: float, std: float) -> NoiseDistribution:
    """ln sigma ~ N(mean, std^2) (Karras et al. 2022, table 1)."""

    def draw(n: int, rng: torch.Generator) -> Tensor:
        return (torch.randn(n, generator=rng, device=rng.device) * std + mean).exp()

    return draw


def karras_levels(
    sigma_min: float, sigma_max: float, rho: float, levels: int, low: float, high: float
) -> NoiseDistribution:
    """sigma uniform over the levels `low * levels` to `high * levels` of `levels` Karras levels, counted from 0 at
    sigma_min (public DMD code: 0.02 and 0.98 of 1000 levels, which are the levels 20 to 980)."""
    first, last = int(low * levels), min(int(high * levels), levels - 1)
    ramp = torch.arange(first, last + 1, dtype=torch.float64) / (levels - 1)
    bottom, top = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    table = ((bottom + ramp * (top - bottom)) ** rho).float()
    # One copy per device: a copy at every draw would make the host wait for the device.
    on_device = cache(table.to)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        index = torch.randint(len(table), (n,), generator=rng, device=rng.device)
        return on_device(rng.device)[index]

    return draw


def noise_distribution(settings: LogNormal | KarrasLevels) -> NoiseDistribution:
    """The distribution of sigma that a `noise` section of params.yaml describes."""
    if isinstance(settings, LogNormal):
        return lognormal(settings.mean, settings.std)
    s = settings
    return karras_levels(s.sigma_min, s.sigma_max, s.rho, s.levels, s.low, s.high)


@dataclass(frozen=True)
class NoisyBatch:
    """Samples x (B, ...) with their noise levels sigma (B,) and standard normal noise eps (B, ...).

    x is a clean sample or the source of one. The generator's lambda (B,) and its input noise z (B, ...) are None where
    it reads none, as are the augmentation labels (B, 9) of images that are not augmented.
    """

    x: Tensor
    sigma: Tensor
    eps: Tensor
    lam: Tensor | None = None
    z: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def parts(self, n: int) -> list["NoisyBatch"]:
        """The batch in at most n parts of equal size; the last part may be smaller."""
        if n == 1:
            return [self]
        x = self.x.chunk(n)
        rest = (self.lam, self.z, self.labels)
        more = (repeat(None, len(x)) if each is None else each.chunk(n) for each in rest)
        return [NoisyBatch(*part) for part in zip(x, self.sigma.chunk(n), self.eps.chunk(n), *more, strict=False)]
