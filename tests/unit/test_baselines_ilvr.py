"""ILVR with analytic teachers."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rdmd.baselines.ilvr import ILVR
from rdmd.baselines.low_pass import low_pass
from rdmd.baselines.sdedit import SIGMA_MAX, down_from

M, S = 0.3, 0.5


def teacher(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(M, S^2 I) over images."""
    variance = sigma.view(-1, 1, 1, 1) ** 2
    return (S**2 * x + variance * M) / (S**2 + variance)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(n: int, side: int) -> Tensor:
    return interpolate(torch.rand(n, 3, 2, 2, generator=rng()) * 2 - 1, size=(side, side), mode="bicubic")


def low_frequency_gap(sigma_stop: float) -> float:
    source = smooth_images(16, 16)
    return low_pass(ILVR(teacher, 4, sigma_stop, 60)(source, rng(1)) - source, 4, "cubic").square().mean().sqrt().item()


def test_held_to_the_end_the_output_has_the_low_frequencies_of_the_source():
    # The filter is not quite a projection: a single correction leaves a part of the gap, sixty leave next to nothing.
    assert low_frequency_gap(0.0) < 1e-3
    assert (
        low_pass(M - smooth_images(16, 16), 4, "cubic").square().mean().sqrt().item() > 0.6
    )  # the teacher alone leaves this


def test_held_to_sigma_stop_they_differ_by_its_noise():
    held = min(level for level in down_from(SIGMA_MAX, 60).tolist() if level >= 0.05)
    passed = low_pass(torch.randn(64, 3, 16, 16, generator=rng()), 4, "cubic").std().item()
    # The noise held, and as much again drawn below that level; then the teacher's pull, below sigma^2 / S^2 of 0.64.
    assert low_frequency_gap(0.05) < math.sqrt(2) * held * passed + 0.64 * held**2 / S**2
    assert low_frequency_gap(0.05) > 0.5 * held * passed


def test_the_mean_follows_the_exact_law():
    # With factor = side the filter is a projection on w^T x, w its weights: a scalar whose law is known at every step.
    side, n, steps, sigma_stop = 4, 20_000, 30, 0.4
    source = torch.full((n, 1, side, side), -0.6)
    unit = torch.eye(side * side).view(-1, 1, side, side)
    w = low_pass(unit, side, "cubic")[:, 0, 0, 0]
    mean, variance = 0.0, SIGMA_MAX**2 * w.square().sum().item()
    for now, then in pairwise(down_from(SIGMA_MAX, steps).tolist()):
        k, r = S**2 / (S**2 + now**2), then**2 / now**2
        slope, fresh = k + r * (1 - k), then**2 * (1 - r) * w.square().sum().item()
        mean, variance = M + slope * (mean - M), slope**2 * variance + fresh
        if then >= sigma_stop:
            mean, variance = -0.6, then**2 * w.square().sum().item()
    y = ILVR(teacher, side, sigma_stop, steps)(source, rng(1)).flatten(1) @ w
    # Four standard errors of mean and variance.
    assert y.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert y.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


def test_the_high_frequencies_are_the_teachers():
    side, n = 4, 4000
    y = ILVR(teacher, side, 0.0, 100)(torch.zeros(n, 1, side, side), rng(1)).flatten(1)
    high = y - y.mean(1, keepdim=True)
    # Variance S^2 less the mean's share; 100 steps lose about a tenth of it (see the law of the ancestral steps).
    assert high.var().item() == pytest.approx(S**2 * (1 - 1 / side**2), rel=0.12)


def test_nfe_is_the_number_of_calls():
    calls = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma[0].item())
        return teacher(x, sigma)

    ilvr = ILVR(counted, 2, 0.1, 9)
    assert ilvr(torch.zeros(2, 3, 4, 4), rng()).shape == (2, 3, 4, 4)
    assert len(calls) == ilvr.nfe == 9
    assert calls[0] == pytest.approx(SIGMA_MAX)


def test_points_are_refused():
    with pytest.raises(ValueError, match="for images"):
        ILVR(teacher, 2, 0.1, 9)(torch.zeros(5, 2), rng())


@pytest.mark.parametrize(("factor", "sigma_stop", "steps"), [(1, 0.1, 5), (2, -1.0, 5), (2, 80.0, 5), (2, 0.1, 0)])
def test_settings_out_of_range_are_refused(factor: int, sigma_stop: float, steps: int):
    with pytest.raises(ValueError, match="ILVR needs"):
        ILVR(teacher, factor, sigma_stop, steps)
