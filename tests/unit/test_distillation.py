"""The generator's gradient against closed forms: N(0, 1) to N(0, s^2) with a linear generator G(x) = a x."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from rdmd.diffusion.loss import noise_like
from rdmd.diffusion.noise import lognormal
from rdmd.distillation.costs import squared_l2
from rdmd.distillation.matching import WEIGHTINGS, matching_surrogate, normalised
from rdmd.distillation.rdmd import RDMDLoss

S = 0.5  # the target's standard deviation
D = 4  # dimensions
# Levels with weight: the optimum must be right for any law of sigma, so a short one is as good as a long one.
SIGMAS = torch.tensor([0.2, 0.5, 1.0, 2.0])
OMEGA = {"unscaled": lambda s: s**2, "inverse_sigma": lambda s: s, "inverse_sigma_squared": lambda s: 1.0}


def denoiser_of(std: float):
    """The exact denoiser of N(0, std^2 I)."""

    def exact_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return x * std**2 / (std**2 + sigma.view(-1, 1) ** 2)

    return exact_denoiser


def kl(a: float, s: float, sigma: float) -> float:
    """KL(N(0, a^2 + sigma^2) || N(0, s^2 + sigma^2)) per dimension."""
    ratio = (a**2 + sigma**2) / (s**2 + sigma**2)
    return (ratio - 1 - math.log(ratio)) / 2


def optimum(weighting: str, lam: float) -> float:
    """The minimiser of mean_t omega_t KL_t + lambda (1 - a)^2, both per dimension."""

    def objective(a: float) -> float:
        matching = sum(OMEGA[weighting](s) * kl(a, S, s) for s in SIGMAS.tolist()) / len(SIGMAS)
        return matching + lam * (1 - a) ** 2

    return minimize_scalar(objective, bounds=(0.05, 1.5), method="bounded", options={"xatol": 1e-10}).x


def expected_gradient(a_value: float, weighting: str, lam: float, n: int = 50_000) -> tuple[float, float]:
    """d/da of the training loss as the training code computes it, with the fake denoiser exact for G's outputs: its
    mean over samples and the standard error."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(n, D, generator=rng)
    a = torch.full((n, 1), a_value, requires_grad=True)  # one copy a sample, so that gradients come out per sample
    generated = a * x
    sigma = SIGMAS[torch.randint(len(SIGMAS), (n,), generator=rng)]
    loss = RDMDLoss(squared_l2, WEIGHTINGS[weighting], sigma_data=0.5)
    fake, teacher = denoiser_of(a_value), denoiser_of(S)
    losses = loss(x, generated, lam, fake=fake, teacher=teacher, sigma=sigma, eps=noise_like(x, rng))
    (gradient,) = torch.autograd.grad(losses.generator.sum(), a)
    return gradient.mean().item(), gradient.std().item() / math.sqrt(n)


@pytest.mark.parametrize("lam", [0.0, 0.01, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("weighting", list(OMEGA))
def test_the_estimator_vanishes_at_the_exact_optimum_of_the_regularised_objective(weighting: str, lam: float):
    a = optimum(weighting, lam)
    gradient, error = expected_gradient(a, weighting, lam)
    # Four standard errors of the Monte Carlo mean; at lambda 0 the two denoisers are one and both sides vanish.
    assert abs(gradient) <= 4 * error
    # It must not vanish elsewhere: at a shifted by 5% it has the sign that leads back.
    up, up_error = expected_gradient(1.05 * a, weighting, lam)
    down, down_error = expected_gradient(0.95 * a, weighting, lam)
    assert up > 4 * up_error
    assert down < -4 * down_error


@pytest.mark.parametrize("weighting", list(OMEGA))
def test_the_estimator_is_the_gradient_of_the_weighted_kl(weighting: str):
    a, step = 0.8, 1e-5
    slope = sum(
        OMEGA[weighting](s) * (kl(a + step, S, s) - kl(a - step, S, s)) / (2 * step) for s in SIGMAS.tolist()
    ) / len(SIGMAS)
    gradient, error = expected_gradient(a, weighting, lam=0.0)
    assert gradient == pytest.approx(slope, abs=4 * error)


def test_without_regularisation_the_optimum_is_the_target_and_lambda_pulls_towards_the_source():
    assert optimum("unscaled", 0.0) == pytest.approx(S, abs=1e-6)
    pulled = [optimum("unscaled", lam) for lam in (0.0, 0.01, 0.1, 0.5, 2.0)]
    assert pulled == sorted(pulled)
    assert pulled[-1] < 1


@pytest.mark.parametrize("lam", [0.0, 0.05, 0.5])
def test_training_in_turn_lands_on_the_optimum(lam: float):
    """Generator and fake denoiser both learned, in turn, from samples alone."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    noise = lognormal(-0.5, 0.7)
    a = torch.tensor([1.0], requires_grad=True)
    log_std = torch.tensor([0.0], requires_grad=True)  # the fake: the denoiser of N(0, exp(log_std)^2)
    generator_steps, fake_steps = torch.optim.Adam([a], lr=2e-3), torch.optim.Adam([log_std], lr=1e-2)
    teacher, loss = denoiser_of(S), RDMDLoss(squared_l2, WEIGHTINGS["unscaled"], sigma_data=0.5)

    def fake(x: Tensor, sigma: Tensor) -> Tensor:
        variance = (2 * log_std).exp()
        return x * variance / (variance + sigma.view(-1, 1) ** 2)

    kept = []
    for step in range(1500):
        x = torch.randn(512, D, generator=rng)
        generated = a * x
        sigma, eps = noise(len(x), rng), noise_like(x, rng)
        loss(x, generated, lam, fake=fake, teacher=teacher, sigma=sigma, eps=eps).generator.mean().backward()
        generator_steps.step()
        generator_steps.zero_grad()
        x_0, sigma = generated.detach(), noise(len(x), rng)
        error = fake(x_0 + sigma.view(-1, 1) * noise_like(x_0, rng), sigma) - x_0
        ((sigma**-2 + 4).view(-1, 1) * error.square()).mean().backward()
        fake_steps.step()
        fake_steps.zero_grad()
        if step >= 1000:
            kept.append(a.item())

    levels = noise(4000, torch.Generator().manual_seed(9)).double().tolist()

    def objective(value: float) -> float:
        return sum(s**2 * kl(value, S, s) for s in levels) / len(levels) + lam * (1 - value) ** 2

    exact = minimize_scalar(objective, bounds=(0.05, 1.5), method="bounded").x
    # The iterate wanders by about the learning rate times the steps it remembers; its mean over 500 steps is within 2%.
    assert sum(kept) / len(kept) == pytest.approx(exact, rel=0.02)


def test_the_surrogate_differentiates_to_the_gradient_over_dimensions():
    generated = torch.randn(3, 2, 4, 4, requires_grad=True)
    gradient = torch.randn(3, 2, 4, 4)
    matching_surrogate(generated, gradient).sum().backward()
    torch.testing.assert_close(generated.grad, gradient / 32)


def test_the_normaliser_divides_each_sample_by_its_own_error():
    d_fake, d_real, x_0 = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 5)
    got = normalised(d_fake, d_real, x_0, torch.ones(3))
    for i in range(3):
        torch.testing.assert_close(got[i], (d_fake[i] - d_real[i]) / (x_0[i] - d_real[i]).abs().mean())
    perfect = normalised(d_fake, d_real, d_real, torch.ones(3))
    assert perfect.isfinite().all()


def test_the_transport_cost_does_not_depend_on_resolution():
    small, large = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 16, 16)
    assert squared_l2(small, small + 0.5).item() == pytest.approx(0.25)
    assert squared_l2(large, large + 0.5).item() == pytest.approx(0.25)
    assert squared_l2(small - 1, small + 1).item() == pytest.approx(4.0)  # the top of its range
