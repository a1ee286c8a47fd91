"""The ancestral sampler and SDEdit against the laws of Gaussians."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rdmd.baselines.sdedit import SDEdit, SDEditSDE, down_from
from rdmd.diffusion.samplers import ancestral_step, denoise, sample_ancestral

M, S = 0.7, 0.4  # the target N(M, S^2)
M1, S1 = -0.5, 0.6  # the source
SIGMA_0 = 1.3


def teacher(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(M, S^2 I)."""
    variance = sigma.view(-1, 1) ** 2
    return (S**2 * x + variance * M) / (S**2 + variance)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stepped_law(mean: float, variance: float, sigmas: list[float]) -> tuple[float, float]:
    """The law after the ancestral steps of N(mean, variance) at sigmas[0]: each step is affine plus Gaussian noise."""
    for now, then in pairwise(sigmas):
        k, r = S**2 / (S**2 + now**2), then**2 / now**2
        slope = k + r * (1 - k)
        mean = slope * (mean - M) + M
        variance = slope**2 * variance + then**2 * (1 - r)
    return mean, variance


def reverse_sde_law() -> tuple[float, float]:
    """SDEdit's law by the reverse SDE, which draws from p(x_0 | x_t) = N(M + k (x_t - M), k sigma_0^2)."""
    k = S**2 / (S**2 + SIGMA_0**2)
    return M + k * (M1 - M), k**2 * (S1**2 + SIGMA_0**2) + k * SIGMA_0**2


def assert_law(y: Tensor, mean: float, variance: float) -> None:
    n = y.numel()
    # Four standard errors: sd / sqrt(n) of the mean, variance sqrt(2 / n) of the variance.
    assert y.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert y.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


def test_one_ancestral_step_draws_from_the_posterior():
    x_t, now, then = torch.full((400_000, 1), 0.2), 0.9, 0.5
    d = teacher(x_t[:1], torch.tensor([now])).item()
    # Bayes: N(x_t; x', now^2 - then^2) N(x'; d, then^2), a product of two Gaussians in x'.
    precision = 1 / then**2 + 1 / (now**2 - then**2)
    mean = (d / then**2 + 0.2 / (now**2 - then**2)) / precision
    assert_law(ancestral_step(x_t, denoise(teacher, x_t, now), now, then, rng()), mean, 1 / precision)


def test_an_ancestral_step_into_zero_is_the_denoiser():
    x_t = torch.randn(10, 2, generator=rng())
    x_0 = teacher(x_t, torch.full((10,), 0.9))
    torch.testing.assert_close(ancestral_step(x_t, x_0, 0.9, 0.0, rng()), x_0)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_the_sampler_has_the_law_of_its_steps(steps: int):
    sigmas = down_from(SIGMA_0, steps)
    x = M1 + math.hypot(S1, SIGMA_0) * torch.randn(400_000, 1, generator=rng())
    expected = stepped_law(M1, S1**2 + SIGMA_0**2, sigmas.tolist())
    assert_law(sample_ancestral(teacher, x, sigmas, rng(1)), *expected)


def test_sdedit_with_the_sde_has_the_law_of_the_reverse_sde():
    source = M1 + S1 * torch.randn(100_000, 1, generator=rng())
    steps = 300
    mean, variance = reverse_sde_law()
    stepped = stepped_law(M1, S1**2 + SIGMA_0**2, down_from(SIGMA_0, steps).tolist())
    # The steps' own bias, of first order, is known without sampling; it is far below the Monte-Carlo error of the mean.
    assert stepped[0] == pytest.approx(mean, abs=1e-9)
    assert stepped[1] == pytest.approx(variance, rel=0.02)
    assert_law(SDEditSDE(teacher, SIGMA_0, steps)(source, rng(1)), *stepped)


def test_the_steps_tend_to_the_sde_at_first_order():
    def error(steps: int) -> float:
        return abs(stepped_law(M1, S1**2 + SIGMA_0**2, down_from(SIGMA_0, steps).tolist())[1] - reverse_sde_law()[1])

    assert error(400) / error(800) == pytest.approx(2, rel=0.1)


def test_noise_becomes_the_target():
    x = 80.0 * torch.randn(100_000, 1, generator=rng())
    sigmas = down_from(80.0, 200)
    mean, variance = stepped_law(0.0, 80.0**2, sigmas.tolist())
    # The steps lose variance: 6.5% of it at 200 steps over this range, and half of that at 400.
    assert mean == pytest.approx(M, abs=1e-3)
    assert variance == pytest.approx(S**2, rel=0.07)
    assert_law(sample_ancestral(teacher, x, sigmas, rng(1)), mean, variance)


@pytest.mark.parametrize("method", [SDEdit, SDEditSDE])
@pytest.mark.parametrize("steps", [1, 7])
def test_nfe_is_the_number_of_calls(method: type, steps: int):
    calls = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma)
        return teacher(x, sigma)

    baseline = method(counted, SIGMA_0, steps)
    out = baseline(torch.zeros(3, 2), rng())
    assert out.shape == (3, 2)
    assert len(calls) == baseline.nfe
    assert all(sigma.shape == (3,) for sigma in calls)


@pytest.mark.parametrize("method", [SDEdit, SDEditSDE])
def test_the_same_rng_gives_the_same_translation(method: type):
    source, baseline = torch.randn(5, 2, generator=rng()), method(teacher, SIGMA_0, 4)
    assert torch.equal(baseline(source, rng(3)), baseline(source, rng(3)))
    assert not torch.equal(baseline(source, rng(3)), baseline(source, rng(4)))


@pytest.mark.parametrize(("sigma_0", "steps"), [(0.0, 5), (1.0, 0)])
def test_a_schedule_of_nothing_is_refused(sigma_0: float, steps: int):
    with pytest.raises(ValueError, match="sigma_0 > 0 and steps >= 1"):
        down_from(sigma_0, steps)
