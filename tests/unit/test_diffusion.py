"""Noise laws, the denoising loss and the samplers against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from rdmd.diffusion.loss import denoising_loss, denoising_weight, noise_like
from rdmd.diffusion.noise import karras_levels, lognormal
from rdmd.diffusion.samplers import heun_evaluations, karras_sigmas, sample_heun

M, S = 0.7, 0.4


def gaussian_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(M, S^2 I): (S^2 x + sigma^2 M) / (S^2 + sigma^2)."""
    variance = sigma.view(-1, 1) ** 2
    return (S**2 * x + variance * M) / (S**2 + variance)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_lognormal_has_the_mean_and_spread_of_its_logarithm():
    n = 200_000
    logs = lognormal(-1.2, 1.3)(n, rng()).log()
    # Standard errors: 1.3 / sqrt(n) of the mean, 1.3 / sqrt(2n) of the spread; four of each.
    assert logs.mean().item() == pytest.approx(-1.2, abs=4 * 1.3 / math.sqrt(n))
    assert logs.std().item() == pytest.approx(1.3, abs=4 * 1.3 / math.sqrt(2 * n))


def test_karras_levels_lie_between_the_percentiles_of_the_schedule():
    draws = karras_levels(0.002, 80.0, 7.0, 1000, 0.02, 0.98)(100_000, rng())
    schedule = karras_sigmas(1000, 0.002, 80.0)[:-1].flip(0)
    assert draws.min().item() == pytest.approx(schedule[20].item(), rel=1e-5)  # as the public DMD code; float32 table
    assert draws.max().item() == pytest.approx(schedule[980].item(), rel=1e-5)
    assert len(draws.unique()) == 980 - 20 + 1


def test_karras_sigmas_follow_equation_5():
    sigmas = karras_sigmas(5, 0.01, 10.0)
    middle = ((10.0 ** (1 / 7) + 0.01 ** (1 / 7)) / 2) ** 7
    assert sigmas.tolist() == pytest.approx(
        [
            10.0,
            ((3 * 10.0 ** (1 / 7) + 0.01 ** (1 / 7)) / 4) ** 7,
            middle,
            ((10.0 ** (1 / 7) + 3 * 0.01 ** (1 / 7)) / 4) ** 7,
            0.01,
            0.0,
        ]
    )


def test_heun_carries_noise_to_the_gaussian_along_the_exact_flow():
    # The probability flow of N(M, S^2) is affine: x_0 = M + (x_s - M) S / sqrt(S^2 + s^2).
    sigmas = karras_sigmas(200, 1e-3, 20.0)
    x = 20.0 * torch.randn(64, 2, generator=rng(), dtype=torch.float64)
    exact = M + (x - M) * S / math.sqrt(S**2 + 20.0**2)
    error = (sample_heun(gaussian_denoiser, x, sigmas) - exact).abs().max().item()
    assert error < 2e-3  # second order: 200 steps leave about 1e-3, and 400 a quarter of it (next test)


def test_heun_is_of_second_order():
    x = 20.0 * torch.randn(64, 2, generator=rng(), dtype=torch.float64)
    exact = M + (x - M) * S / math.sqrt(S**2 + 20.0**2)

    def error(steps: int) -> float:
        return (sample_heun(gaussian_denoiser, x, karras_sigmas(steps, 1e-3, 20.0)) - exact).abs().max().item()

    assert error(100) / error(200) == pytest.approx(4, rel=0.25)  # a first-order method would give 2


def test_heun_counts_its_evaluations():
    calls = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(len(x))
        return gaussian_denoiser(x, sigma)

    sample_heun(counted, torch.zeros(3, 2), karras_sigmas(7, 0.01, 1.0))
    assert len(calls) == heun_evaluations(7) == 13


def test_the_exact_denoiser_has_the_least_loss_and_it_is_the_posterior_variance():
    n, sigma = 400_000, 0.9
    x_0 = M + S * torch.randn(n, 1, generator=rng())
    eps, sigmas = noise_like(x_0, rng(1)), torch.full((n,), sigma)
    loss = denoising_loss(gaussian_denoiser, x_0, sigmas, eps, 0.5)
    variance = S**2 * sigma**2 / (S**2 + sigma**2)
    weight = denoising_weight(torch.tensor(sigma), 0.5).item()
    # The squared error is variance * chi^2_1, whose spread is sqrt(2): four standard errors.
    assert loss.mean().item() == pytest.approx(weight * variance, rel=4 * math.sqrt(2 / n))
    worse = denoising_loss(lambda x, s: gaussian_denoiser(x, s) + 0.1, x_0, sigmas, eps, 0.5)
    assert worse.mean().item() == pytest.approx(weight * (variance + 0.01), rel=0.01)
