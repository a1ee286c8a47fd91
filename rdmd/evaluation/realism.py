"""How like the target a set of translations is: FID, KID, precision and recall, on features (N, dim) float64.

In every function `generated` comes first and `reference` second. Samples that are no independent draws (copies of one
scan in several colours) form a group (`Groups`): intervals draw whole groups, KID compares samples of different groups,
and the neighbours of a sample are those of other groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CONFIDENCE = 0.95
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
NEIGHBOURS = 3
# Rows of distances at once: 50 MB of float32 beside 50,000 samples, and float32 loses nothing to larger ones.
_BLOCK = 256
# Neighbours that float32 proposes, of which float64 picks the third.
_CANDIDATES = 8


@dataclass(frozen=True)
class Moments:
    """The mean (dim,) and covariance (dim, dim; N - 1 in the denominator) of a set of features."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Kid:
    """KID's mean over subsets and the standard deviation between them (not the mean's standard error)."""

    mean: float
    std: float


@dataclass(frozen=True)
class PrecisionRecall:
    """The share of generated samples within the reference, and of the reference that they cover."""

    precision: float
    recall: float


@dataclass(frozen=True)
class Groups:
    """The group of each sample: int64 (N,), 0 to the number of groups less one, on each side."""

    generated: Tensor
    reference: Tensor


def moments(features: Tensor, counts: Tensor | None = None) -> Moments:
    """The moments of features (N, dim), N >= 2, in float64, where sample i occurs counts[i] times (None: once)."""
    _check(features)
    features = features.double()
    weights = torch.ones(len(features), dtype=torch.float64)
    if counts is not None:
        # A resample leaves out a third of the samples.
        features, weights = features[counts > 0], counts[counts > 0].double()
    mean = weights @ features / weights.sum()
    scaled = (features - mean).mul_(weights.sqrt()[:, None])
    return Moments(mean, scaled.T @ scaled / (weights.sum() - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet (Bures-Wasserstein) distance of two Gaussians (Heusel et al. 2017).

    `|m_a - m_b|^2 + tr A + tr B - 2 tr (A B)^(1/2)`. The last trace is the sum of the square roots of the eigenvalues
    of `A^(1/2) B A^(1/2)`, which is symmetric, so that nothing becomes complex. POT's function takes twice the time.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(0.0, distance.item())


def fid(generated: Tensor, reference: Tensor) -> float:
    """The Frechet distance of the two sets' moments. It is biased upward, the more the fewer the samples."""
    _check(generated)
    _check(reference)
    once = [torch.ones(len(side), dtype=torch.float64) for side in (generated, reference)]
    return _weighted_fid(generated.double(), once[0], reference.double(), once[1])


def fid_interval(
    generated: Tensor, reference: Tensor, resamples: int, seed: int, groups: Groups | None = None
) -> tuple[float, float]:
    """A 95% bootstrap interval around `fid`: both sets are drawn again with replacement, group by group, `resamples`
    times.

    A resample repeats samples, so its FID is biased further upward, by about as much as the estimate itself: a plain
    percentile interval could miss the estimate. The interval is therefore the spread of the resampled values, moved so
    that their mean is the estimate. It shows how much the estimate would vary with other samples of the same sizes, and
    not the bias of FID at these sizes, which a comparison at equal sizes shares.
    """
    generated, reference = generated.double(), reference.double()
    groups = groups or _every_sample(generated, reference)
    if resamples < 2 or not can_be_resampled(groups):
        raise ValueError("a bootstrap interval needs two or more resamples, of two or more groups on both sides")
    rng = torch.Generator().manual_seed(seed)
    values = torch.tensor(
        [
            _weighted_fid(generated, _resampled(groups.generated, rng), reference, _resampled(groups.reference, rng))
            for _ in range(resamples)
        ],
        dtype=torch.float64,
    )
    return centred_interval(fid(generated, reference), values)


def centred_interval(estimate: float, resampled: Tensor) -> tuple[float, float]:
    """The central 95% of resampled values, moved so that their mean is the estimate; not below zero."""
    tail = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.float64)
    low, high = (torch.quantile(resampled, tail) - resampled.mean() + estimate).tolist()
    return max(0.0, low), max(0.0, high)


def kid(generated: Tensor, reference: Tensor, seed: int, groups: Groups | None = None) -> Kid:
    """Kernel Inception Distance (Binkowski et al. 2018): the unbiased MMD^2 under the kernel `(x.y / dim + 1)^3`.

    The mean over 100 random subsets of 1000 of each set, as in torch-fidelity; smaller sets limit the size of subsets,
    and if both sets are used whole there is one value and no spread. It can fall slightly below zero. Pairs within a
    set count where they are of two groups, since copies of one scan are more alike than independent draws. Raises
    ValueError if a set is of a single group.
    """
    _check(generated)
    _check(reference)
    size = min(KID_SUBSET_SIZE, len(generated), len(reference))
    subsets = 1 if size == len(generated) == len(reference) else KID_SUBSETS
    rng = torch.Generator().manual_seed(seed)
    generated, reference = generated.double(), reference.double()
    groups = groups or _every_sample(generated, reference)
    if not can_be_resampled(groups):
        raise ValueError("KID needs two or more groups on both sides")
    values = []
    for _ in range(subsets):
        ours, theirs = (_subset(len(side), size, rng) for side in (generated, reference))
        some = Groups(groups.generated[ours], groups.reference[theirs])
        values.append(_mmd2(generated[ours], reference[theirs], some))
    return Kid(float(np.mean(values)), float(np.std(values)))


def precision_recall(generated: Tensor, reference: Tensor, groups: Groups | None = None) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019), k = 3.

    A set's manifold is the union of balls around its samples, each as large as the distance to its third
    neighbour of another group.

    The result is that of float64 at a fraction of its time: distances are made in float32, and float64 decides whatever
    lies nearer to a boundary than float32's rounding. Memory is bounded: 256 rows of distances are held at a time.
    """
    _check(generated)
    _check(reference)
    groups = groups or _every_sample(generated, reference)
    if not have_neighbours(groups):
        raise ValueError(f"precision and recall need {NEIGHBOURS} samples of other groups beside each, on both sides")
    # Distances come from matrix products, whose rounding grows with the distance from the origin.
    centre = reference.double().mean(dim=0)
    ours, theirs = _Points.of(generated.double() - centre), _Points.of(reference.double() - centre)
    return PrecisionRecall(
        precision=_share_within(ours, theirs, _radii(theirs, groups.reference)),
        recall=_share_within(theirs, ours, _radii(ours, groups.generated)),
    )


def can_be_resampled(groups: Groups) -> bool:
    """Whether there are two or more groups on both sides: draws of one group are all equal."""
    return min(int(side.max()) for side in (groups.generated, groups.reference)) > 0


def have_neighbours(groups: Groups) -> bool:
    """Whether each sample of both sides has as many samples of other groups beside it as `precision_recall` needs."""
    return all(
        len(side) - int(torch.bincount(side).max()) >= NEIGHBOURS for side in (groups.generated, groups.reference)
    )


def _check(features: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"needs features (N, dim) with N >= 2, got shape {tuple(features.shape)}")


def _every_sample(generated: Tensor, reference: Tensor) -> Groups:
    return Groups(torch.arange(len(generated)), torch.arange(len(reference)))


def _weighted_fid(generated: Tensor, counts_g: Tensor, reference: Tensor, counts_r: Tensor) -> float:
    """`fid` of two sets, float64, in which sample i occurs counts[i] times.

    Of fewer samples than dimensions, covariances are `X^T X` of small X (N, dim), and the roots of the eigenvalues of
    `X^T X Y^T Y` are the singular values of `X Y^T`, an (N, M) matrix: a hundred times quicker for 64 samples of 1280.
    """
    if max(len(generated), len(reference)) >= generated.shape[1]:
        return frechet_distance(moments(generated, counts_g), moments(reference, counts_r))
    means, roots = [], []
    for features, counts in ((generated, counts_g), (reference, counts_r)):
        means.append(counts @ features / counts.sum())
        # A resample leaves out more than a third of the samples, and their zeros would only cost time.
        occur = counts > 0
        roots.append((features[occur] - means[-1]) * (counts[occur] / (counts.sum() - 1)).sqrt()[:, None])
    cross = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    spread = roots[0].square().sum() + roots[1].square().sum()
    return max(0.0, ((means[0] - means[1]).square().sum() + spread - 2 * cross).item())


def _resampled(groups: Tensor, rng: torch.Generator) -> Tensor:
    """The number of times that each sample occurs in a resample, float64 (N,)."""
    count = int(groups.max()) + 1
    drawn = torch.bincount(torch.randint(count, (count,), generator=rng), minlength=count)
    return drawn[groups].double()


def _subset(count: int, size: int, rng: torch.Generator) -> Tensor:
    """The places of `size` of `count` samples, drawn without replacement; in their order if these are all."""
    return torch.arange(count) if size == count else torch.randperm(count, generator=rng)[:size]


def _mmd2(x: Tensor, y: Tensor, groups: Groups) -> float:
    k_xx, k_yy, k_xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = [
        kernel[side[:, None] != side].mean() for kernel, side in ((k_xx, groups.generated), (k_yy, groups.reference))
    ]
    return (within[0] + within[1] - 2 * k_xy.mean()).item()


@dataclass(frozen=True)
class _Points:
    """Points (N, dim), centred, in float64 and in float32, and their squared norms (N,) in float64."""

    exact: Tensor
    rough: Tensor
    norms: Tensor

    @classmethod
    def of(cls, exact: Tensor) -> "_Points":
        return cls(exact, exact.float(), exact.square().sum(dim=1))

    def rows(self, index: Tensor | slice) -> "_Points":
        return _Points(self.exact[index], self.rough[index], self.norms[index])

    def blocks(self) -> Iterator[slice]:
        return (slice(start, start + _BLOCK) for start in range(0, len(self.exact), _BLOCK))


def _rough_distances(x: _Points, y: _Points, less: Tensor, out: Tensor) -> Tensor:
    """Squared distances in float32 less what float64 adds exactly: `d(x_i, y_j)^2 - |x_i|^2 - less_j`: (N, M)."""
    return torch.addmm((y.norms - less).float(), x.rough, y.rough.T, alpha=-2, out=out[: len(x.rough)])


def _rounding(x: _Points, y: _Points) -> Tensor:
    """A bound (N,) on the error of `_rough_distances`: that of a float32 sum of dim products, plus a few roundings."""
    steps = (x.exact.shape[1] + 16) * torch.finfo(torch.float32).eps
    return steps * (x.norms.sqrt() + y.norms.max().sqrt()).square()


def _exact_distances(x: _Points, y: _Points) -> Tensor:
    """Squared distances (N, M), float64."""
    return (x.norms[:, None] + y.norms - 2 * x.exact @ y.exact.T).clamp_(min=0)


def _radii(points: _Points, groups: Tensor) -> Tensor:
    """The squared distance from each point to its third neighbour of another group: (N,)."""
    radii = torch.empty_like(points.norms)
    proposed = min(_CANDIDATES, len(groups))
    unsure, buffer = [], torch.empty(_BLOCK, len(groups))
    for block in points.blocks():
        some = points.rows(block)
        rough = _rough_distances(some, points, torch.zeros_like(points.norms), buffer)
        rough.masked_fill_(groups[block, None] == groups, torch.inf)
        near = rough.topk(proposed, dim=1, largest=False)
        exact = (some.exact[:, None] - points.exact[near.indices]).square().sum(dim=2)
        radii[block] = exact.masked_fill(near.values.isinf(), torch.inf).kthvalue(NEIGHBOURS, dim=1).values
        # Nothing that was left out is nearer than the last candidate less the rounding.
        sure = near.values[:, -1] + some.norms - _rounding(some, points) > radii[block]
        unsure.append(sure.logical_not_())
    index = torch.cat(unsure).nonzero()[:, 0]
    for rows in index.split(_BLOCK):
        exact = _exact_distances(points.rows(rows), points)
        exact.masked_fill_(groups[rows, None] == groups, torch.inf)
        radii[rows] = exact.kthvalue(NEIGHBOURS, dim=1).values
    return radii


def _share_within(points: _Points, manifold: _Points, radii: Tensor) -> float:
    """The share of points within the manifold's balls of squared `radii` (M,)."""
    # In a matrix product equal points are a rounding error apart, also in float64.
    radii = radii + 1e-12 * manifold.norms.max()
    buffer = torch.empty(_BLOCK, len(radii))
    beyond = torch.empty_like(points.norms)
    for block in points.blocks():
        some = points.rows(block)
        beyond[block] = _rough_distances(some, manifold, radii, buffer).amin(dim=1).double() + some.norms
    inside = beyond <= 0
    # The radii are rounded to float32 as well, and are at most four times the largest squared norm.
    index = (beyond.abs() <= _rounding(points, manifold)).nonzero()[:, 0]
    for rows in index.split(_BLOCK):
        inside[rows] = (_exact_distances(points.rows(rows), manifold) <= radii).any(dim=1)
    return inside.double().mean().item()
