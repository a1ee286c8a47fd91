"""Noise laws: how sigma is drawn in training."""

import math
from collections.abc import Callable
from functools import cache

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
    """sigma uniform over those of `levels` Karras levels that lie between the fractions `low` and `high` of the
    schedule, counted from sigma_min (the distribution of the public DMD code: 0.02 to 0.98 of 1000 levels)."""
    first, last = math.floor(low * (levels - 1)), math.ceil(high * (levels - 1))
    ramp = torch.arange(first, last + 1, dtype=torch.float64) / (levels - 1)
    bottom, top = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    table = ((bottom + ramp * (top - bottom)) ** rho).float()
    # A copy to the device at every draw would make the host wait for it.
    on_device = cache(table.to)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        index = torch.randint(len(table), (n,), generator=rng, device=rng.device)
        return on_device(rng.device)[index]

    return draw


def noise_distribution(settings: LogNormal | KarrasLevels) -> NoiseDistribution:
    """The law that a `noise` section of params.yaml names."""
    if isinstance(settings, LogNormal):
        return lognormal(settings.mean, settings.std)
    s = settings
    return karras_levels(s.sigma_min, s.sigma_max, s.rho, s.levels, s.low, s.high)
