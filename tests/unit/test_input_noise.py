"""Noise at the generator's input: whose it is, and the optimum that it moves."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rdmd.config import LambdaRange
from rdmd.diffusion.loss import noise_like
from rdmd.distillation.costs import squared_l2
from rdmd.distillation.generator import Generator, own_noise
from rdmd.distillation.matching import WEIGHTINGS
from rdmd.distillation.rdmd import RDMDLoss

S, LAM, NOISE, D = 0.5, 0.1, 0.7, 4
SIGMAS = torch.tensor([0.2, 0.5, 1.0, 2.0])


class Scaled(nn.Module):
    """D(y, sigma) = w y, with one w a sample so that gradients come out per sample."""

    def __init__(self, w: float, n: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((n, 1), w))

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        return self.w * y


@pytest.mark.parametrize("input_noise", [NOISE, (NOISE, 0.1)])
def test_the_noise_is_on_the_device_of_the_source(input_noise: float | tuple[float, float]):
    """Fake tensors refuse what a GPU refuses: a sum of tensors on two devices."""

    class Same(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, lam: Tensor | None = None) -> Tensor:
            return x

    lambdas = LambdaRange.model_validate({"from": 0.01, "to": 0.5}) if isinstance(input_noise, tuple) else None
    with FakeTensorMode():
        x = torch.zeros(3, D, device="cuda")
        y = Generator(Same(), 1.0, input_noise, lambdas)(x, 0.1, torch.zeros(3, D, device="cuda"))
    assert y.device.type == "cuda"


def exact_denoiser(std: float):
    return lambda x, sigma: x * std**2 / (std**2 + sigma.view(-1, 1) ** 2)


def objective(w: float) -> float:
    """mean_t sigma_t^2 KL_t + lambda E (x - w (x + NOISE z))^2 for x, z ~ N(0, 1), per dimension."""
    variance = w**2 * (1 + NOISE**2)
    ratios = [(variance + s**2) / (S**2 + s**2) for s in SIGMAS.tolist()]
    matching = sum(s**2 * (r - 1 - math.log(r)) / 2 for s, r in zip(SIGMAS.tolist(), ratios, strict=True)) / len(ratios)
    return matching + LAM * ((1 - w) ** 2 + (w * NOISE) ** 2)


def slope(w: float, n: int = 50_000) -> tuple[float, float]:
    """d/dw of the training loss with an exact fake denoiser: its mean over samples and the standard error."""
    rng = torch.Generator().manual_seed(1)
    x, z = torch.randn(n, D, generator=rng), torch.randn(n, D, generator=rng)
    generator = Generator(Scaled(w, n), 1.0, NOISE)
    generated = generator(x, z=z)
    sigma = SIGMAS[torch.randint(len(SIGMAS), (n,), generator=rng)]
    fake = exact_denoiser(w * math.sqrt(1 + NOISE**2))
    loss = RDMDLoss(squared_l2, WEIGHTINGS["unscaled"], sigma_data=0.5)
    losses = loss(x, generated, LAM, fake=fake, teacher=exact_denoiser(S), sigma=sigma, eps=noise_like(x, rng))
    (gradient,) = torch.autograd.grad(losses.generator.sum(), generator.denoiser.w)
    return gradient.mean().item(), gradient.std().item() / math.sqrt(n)


def test_the_estimator_vanishes_at_the_exact_optimum_with_noise_at_the_input():
    w = minimize_scalar(objective, bounds=(0.05, 1.5), method="bounded", options={"xatol": 1e-10}).x
    gradient, error = slope(w)
    # Four standard errors of the Monte Carlo mean.
    assert abs(gradient) <= 4 * error
    up, up_error = slope(1.05 * w)
    down, down_error = slope(0.95 * w)
    assert up > 4 * up_error
    assert down < -4 * down_error


def test_own_noise_belongs_to_the_sample_and_not_to_its_batch():
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = own_noise(x)
    assert torch.equal(own_noise(x.flip(0)).flip(0), noise)
    assert torch.equal(own_noise(x[2:3])[0], noise[2])
    changed = x.clone()
    changed[2, 1, 0, 0] += 1e-3
    assert not torch.equal(own_noise(changed)[2], noise[2])
    zero = torch.zeros(1, 5)
    assert torch.equal(own_noise(-zero), own_noise(zero))


def test_own_noise_is_standard_normal_and_independent_between_samples():
    n = 4000
    noise = own_noise(torch.arange(n, dtype=torch.float32).view(n, 1).expand(n, 2) / n).double()
    # Standard errors of a mean, a variance and a correlation of that many draws; four of them.
    assert noise.mean().abs() < 4 / math.sqrt(2 * n)
    assert (noise.var() - 1).abs() < 4 * math.sqrt(2 / (2 * n))
    after = (noise[1:] * noise[:-1]).mean()
    assert after.abs() < 4 / math.sqrt(2 * n)


def test_without_noise_z_is_not_read():
    x = torch.randn(3, 2)
    generator = Generator(Scaled(0.5, 3), 1.0)
    assert torch.equal(generator(x, z=torch.full_like(x, math.nan)), 0.5 * x)
    noisy = Generator(Scaled(0.5, 3), 1.0, 2.0)
    assert torch.equal(noisy(x), noisy(x, z=own_noise(x)))
    assert noisy(x, z=torch.ones_like(x)).detach() == pytest.approx(0.5 * (x + 2.0))
