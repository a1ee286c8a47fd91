"""Optimal transport between samples, for experiments on points: the exact map, and distances to the target.

The cost here is `||x - y||^2`, summed over dimensions, as in the Wasserstein distance. All functions take points (N, d)
and work in float64 on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rdmd.evaluation.realism import centred_interval

# Directions are strongly correlated on the plane, so the spread between resamples needs fewer of them.
_BOOTSTRAP_PROJECTIONS = 64
_MAX_ITERATIONS = 10_000_000


@dataclass(frozen=True)
class ExactPlan:
    """The optimal coupling of two samples: its cost W2^2, and the mean destination of each source point (N, d).

    `cost` is the least possible mean of `||x - G(x)||^2` of a map onto the target. With equal counts the plan is a
    permutation, and the mean destinations are the exact map between the samples.
    """

    cost: float
    barycentres: Tensor


@dataclass(frozen=True)
class AffineMap:
    """`x -> matrix x + offset`, on row vectors (N, d)."""

    matrix: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(N, d) to (N, d)."""
        return x @ self.matrix.T + self.offset


def sliced_w2(x: Tensor, y: Tensor, projections: int, seed: int) -> float:
    """The sliced 2-Wasserstein distance: the root of the mean, over random directions, of the 1D W2^2.

    Directions come from `seed`. Sizes may differ: each 1D distance is exact between the two empirical distributions.
    Two samples of one distribution are not at distance zero; compare with a second sample of the target. NumPy sorts
    contiguous rows seven times as fast as torch sorts columns, which is all the time that this takes.
    """
    x, y = _points(x), _points(y)
    directions = _directions(projections, x.shape[1], seed)
    return _sorted_w2(*(torch.from_numpy(np.sort((directions @ side.T).numpy(), axis=1)) for side in (x, y)))


def sliced_w2_interval(
    pairs: Sequence[tuple[Tensor, Tensor]], projections: int, resamples: int, seed: int
) -> tuple[float, float]:
    """A 95% bootstrap interval around the mean of `sliced_w2` over pairs of samples: both sides of each pair are
    resampled, and it is centred as `fid_interval` is."""
    if min(resamples, *(len(side) for pair in pairs for side in pair)) < 2:
        raise ValueError("a bootstrap interval needs two or more resamples, of two or more points on both sides")
    rng = torch.Generator().manual_seed(seed)
    values = torch.zeros(resamples, dtype=torch.float64)
    for x, y in pairs:
        directions = _directions(min(projections, _BOOTSTRAP_PROJECTIONS), x.shape[1], seed)
        sides = (directions @ _points(x).T).sort(dim=1), (directions @ _points(y).T).sort(dim=1)
        for i in range(resamples):
            values[i] += _sorted_w2(*(_resampled_sorted(side.values, side.indices, rng) for side in sides))
    mean = sum(sliced_w2(x, y, projections, seed) for x, y in pairs) / len(pairs)
    return centred_interval(mean, values / len(pairs))


def exact_plan(x: Tensor, y: Tensor) -> ExactPlan:
    """Exact discrete optimal transport between two samples with equal weights (POT's network simplex).

    POT computes costs from the coordinates when it needs them, so memory grows with N and not with N^2; a dense matrix
    takes 800 MB at 10,000 points. Time grows a little faster than N^2: 2 s at 2,000 points, 9 s at 4,000 on one core.
    Raises `RuntimeError` if the solver stops early.
    """
    import ot

    x, y = _points(x), _points(y)
    cost, log = ot.lp.emd2_lazy(x.numpy(), y.numpy(), numItermax=_MAX_ITERATIONS, log=True, return_matrix=True)
    if log["warning"] is not None:
        raise RuntimeError(f"exact transport between {len(x)} and {len(y)} points did not finish: {log['warning']}")
    return ExactPlan(float(cost), torch.from_numpy(log["G"].tocsr() @ y.numpy()) * len(x))


def w2(x: Tensor, y: Tensor) -> float:
    """The 2-Wasserstein distance between two samples. At small N it is biased upward."""
    return max(0.0, exact_plan(x, y).cost) ** 0.5


def l2_uvp(mapped: Tensor, exact: Tensor, target: Tensor) -> float:
    """Unexplained variance percentage: `100 E||G(x) - G*(x)||^2 / Var(p_T)` (Korotin et al. 2021).

    `Var` is the sum over dimensions of the variance (N - 1) of `target`. The value is 0 for the exact map and 100 for
    the constant map to the target's mean. `exact` comes from finite samples: two such estimates from 8,000 points
    differ by 0.4%, so smaller values do not differ from zero.
    """
    if len(target) < 2:
        raise ValueError("a variance needs two or more points")
    gap = (_points(mapped) - _points(exact)).square().sum(dim=1).mean().item()
    return 100 * gap / _points(target).var(dim=0).sum().item()


def affine_monge_map(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> AffineMap:
    """The Monge map from N(mean_1, cov_1) to N(mean_2, cov_2), cov_1 regular (Peyre and Cuturi 2019, remark 2.31)."""
    from ot.gaussian import bures_wasserstein_mapping

    return AffineMap(*bures_wasserstein_mapping(mean_1.double(), mean_2.double(), cov_1.double(), cov_2.double()))


def _points(x: Tensor) -> Tensor:
    if x.ndim != 2 or len(x) < 1:
        raise ValueError(f"needs points (N, d) with N >= 1, got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise FloatingPointError("a point is not finite")
    return x.detach().double().cpu()


def _directions(projections: int, dim: int, seed: int) -> Tensor:
    """Random unit vectors, (projections, d)."""
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(dim, projections, generator=rng, dtype=torch.float64), dim=0).T


def _sorted_w2(x: Tensor, y: Tensor) -> float:
    """The root of the mean over rows of the 1D W2^2 between sorted rows (p, n) and (p, m)."""
    n, m = x.shape[1], y.shape[1]
    if n == m:
        return (x - y).square().mean().sqrt().item()
    # Both quantile functions are constant between neighbouring multiples of 1 / (n m), here integers without rounding.
    steps = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = torch.diff(steps, prepend=torch.zeros(1, dtype=steps.dtype)).double() / (n * m)
    gap = x[:, (steps - 1) // m] - y[:, (steps - 1) // n]
    return (gap.square() @ widths).mean().sqrt().item()


def _resampled_sorted(values: Tensor, order: Tensor, rng: torch.Generator) -> Tensor:
    """Sorted rows (p, n) after drawing the n points again: still sorted, without a second sort."""
    p, n = values.shape
    counts = torch.bincount(torch.randint(n, (n,), generator=rng), minlength=n)
    return torch.repeat_interleave(values.reshape(-1), counts[order].reshape(-1)).reshape(p, n)
