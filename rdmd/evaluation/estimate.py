"""A number together with how far it can be trusted."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """The mean of independent per-sample values and the standard error of that mean, None of a single value."""

    mean: float
    se: float | None


def estimate(values: Tensor) -> Estimate:
    """Mean and standard error (N - 1 in the variance) of per-sample values (N,), N >= 1, in float64."""
    values = values.double()
    if values.ndim != 1 or len(values) < 1:
        raise ValueError(f"needs one or more per-sample values, got shape {tuple(values.shape)}")
    se = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(values.mean().item(), se)
