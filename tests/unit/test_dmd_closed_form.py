"""DMD, noise to data: lambda 0 and a source that is never seen twice, against a closed form."""

import pytest
import torch
from torch import Tensor

from rdmd.data.sampling import StepRandom
from rdmd.data.view import FreshNoise
from rdmd.diffusion.loss import noise_like
from rdmd.diffusion.noise import lognormal
from rdmd.distillation.costs import squared_l2
from rdmd.distillation.matching import WEIGHTINGS
from rdmd.distillation.rdmd import RDMDLoss
from rdmd.evaluation.row import Row
from rdmd.evaluation.selection import mark_front, pick

MEAN, S, D, STD = 0.7, 0.5, 4, 80.0


def denoised(x: Tensor, sigma: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    """The denoiser of N(mean, variance I)."""
    square = sigma.view(-1, 1) ** 2
    return (variance * x + square * mean) / (variance + square)


@pytest.mark.parametrize("weighting", ["unscaled", "normalised"])
def test_a_linear_generator_from_noise_lands_on_the_target(weighting: str):
    """G(z) = a z / 80 + b from N(0, 80^2 I), with a learned fake denoiser, onto N(0.7, 0.5^2 I): a = 0.5, b = 0.7."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    source, noise = FreshNoise((D,), STD), lognormal(-0.5, 0.7)
    a, b = torch.tensor([1.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    mean, log_std = torch.tensor([0.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    of_generator, of_fake = torch.optim.Adam([a, b], lr=2e-3), torch.optim.Adam([mean, log_std], lr=1e-2)

    def fake(x: Tensor, sigma: Tensor) -> Tensor:
        return denoised(x, sigma, mean, (2 * log_std).exp())

    def teacher(x: Tensor, sigma: Tensor) -> Tensor:
        return denoised(x, sigma, MEAN, S**2)

    loss, kept = RDMDLoss(squared_l2, WEIGHTINGS[weighting], sigma_data=0.5), []
    for step in range(2000):
        z = source.batch(512, StepRandom(0, 0, step, torch.device("cpu")), "source")
        generated = a * z / STD + b
        sigma, eps = noise(len(z), rng), noise_like(z, rng)
        loss(z, generated, 0.0, fake=fake, teacher=teacher, sigma=sigma, eps=eps).generator.mean().backward()
        of_generator.step()
        of_generator.zero_grad()
        x_0, sigma = generated.detach(), noise(len(z), rng)
        error = fake(x_0 + sigma.view(-1, 1) * noise_like(x_0, rng), sigma) - x_0
        ((sigma**-2 + 4).view(-1, 1) * error.square()).mean().backward()
        of_fake.step()
        of_fake.zero_grad()
        if step >= 1500:
            kept.append((a.item(), b.item()))
    # The iterates wander by about the learning rate times the steps they remember; means over 500 are within 2%.
    assert sum(value for value, _ in kept) / len(kept) == pytest.approx(S, rel=0.02)
    assert sum(value for _, value in kept) / len(kept) == pytest.approx(MEAN, rel=0.02)


def test_the_front_of_generators_without_a_cost_is_the_best_realism():
    rows = mark_front(
        [
            Row(method="teacher", fid=3.0),
            Row(method="rdmd", lam=0.0, fid=9.0, run="a"),
            Row(method="rdmd", lam=0.0, fid=7.0, run="b"),
        ]
    )
    assert [row.on_front for row in rows] == [False, False, True]
    assert {pick(rows, rule).run for rule in ("cheapest-near-best", "most-faithful", "most-realistic")} == {"b"}


def test_a_row_without_realism_is_not_on_the_front():
    (row,) = mark_front([Row(method="rdmd", lam=0.0)])
    assert not row.on_front
