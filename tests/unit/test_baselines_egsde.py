"""EGSDE and its domain classifier: the energies against closed forms, finite differences and the published VP step."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from rdmd import config
from rdmd.baselines.egsde import EGSDE, DomainClassifier, attracting, build_domain_classifier, domain_loss, repelling
from rdmd.baselines.low_pass import low_pass
from rdmd.baselines.sdedit import SDEditSDE, down_from
from rdmd.diffusion.loss import like, noise_like
from rdmd.diffusion.samplers import ancestral_step, denoise

M, S, SIGMA_0 = 0.7, 0.4, 1.3
POINTS = config.PointNetwork(kind="mlp", width=16, depth=2)
IMAGES = config.ImageNetwork(kind="ddpmpp", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[])


def teacher(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(M, S^2 I)."""
    variance = like(sigma, x) ** 2
    return (S**2 * x + variance * M) / (S**2 + variance)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(network: config.ImageNetwork | config.PointNetwork, shape: tuple[int, ...]) -> DomainClassifier:
    torch.manual_seed(0)
    return build_domain_classifier(network, shape)


CASES = [(POINTS, (2,), 1), (IMAGES, (3, 8, 8), 2)]


@pytest.mark.parametrize(("network", "shape", "factor"), CASES)
def test_without_energies_it_is_sdedit_bit_for_bit(network, shape: tuple[int, ...], factor: int):
    source = torch.randn(6, *shape, generator=rng())
    egsde = EGSDE(teacher, classifier(network, shape), SIGMA_0, 5, repel=0.0, attract=0.0, factor=factor)
    assert torch.equal(egsde(source, rng(1)), SDEditSDE(teacher, SIGMA_0, 5)(source, rng(1)))
    guided = EGSDE(teacher, classifier(network, shape), SIGMA_0, 5, repel=1.0, attract=0.0, factor=factor)
    assert not torch.equal(guided(source, rng(1)), SDEditSDE(teacher, SIGMA_0, 5)(source, rng(1)))


def test_attraction_moves_a_step_by_the_exact_amount():
    source, attract = torch.randn(50, 2, generator=rng()), 0.3
    draw = rng(1)
    eps = noise_like(source, draw)
    x = source + SIGMA_0 * eps
    for now, then in pairwise(down_from(SIGMA_0, 4).tolist()):
        drift = -(now**2 - then**2) * attract * 2 * (x - (source + now * eps)) / (1 + now**2)
        x = ancestral_step(x, denoise(teacher, x, now), now, then, draw) + drift
    guided = EGSDE(teacher, classifier(POINTS, (2,)), SIGMA_0, 4, 0.0, attract, 1)(source, rng(1))
    torch.testing.assert_close(guided, x)
    assert (x - SDEditSDE(teacher, SIGMA_0, 4)(source, rng(1))).abs().max().item() > 0.05


def test_attraction_brings_the_translation_to_the_source():
    source = torch.randn(500, 2, generator=rng()) - 1

    def distance(attract: float) -> float:
        egsde = EGSDE(teacher, classifier(POINTS, (2,)), SIGMA_0, 50, 0.0, attract, 1)
        return (egsde(source, rng(1)) - source).square().mean().item()

    assert distance(0.0) > 1.2 * distance(1.0) > 1.4 * distance(3.0)


@pytest.mark.parametrize(("network", "shape", "factor"), CASES)
def test_the_energy_gradient_agrees_with_finite_differences(network, shape: tuple[int, ...], factor: int):
    net = classifier(network, shape).double()
    egsde = EGSDE(teacher, net, SIGMA_0, 1, repel=3.0, attract=0.2, factor=factor)
    x = torch.randn(3, *shape, generator=rng(), dtype=torch.float64)
    source = torch.randn(3, *shape, generator=rng(1), dtype=torch.float64)
    direction = torch.randn(3, *shape, generator=rng(2), dtype=torch.float64)

    def energy(at: Tensor) -> Tensor:
        repel = repelling(net, at, source, 0.8)
        return (3.0 * repel + 0.2 * attracting(at, source, 0.8, factor)).detach()

    h = 1e-5
    slope = (energy(x + h * direction) - energy(x - h * direction)) / (2 * h)
    found = (egsde.energy_gradient(x, source, 0.8) * direction).flatten(1).sum(1)
    # Central differences err by h^2 = 1e-10 and by rounding, 1e-16 / h = 1e-11.
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-8)
    assert repelling(net, x, x, 0.8).tolist() == pytest.approx([1.0] * 3)  # nothing is as similar as itself


def test_the_step_is_that_of_the_published_vp_code_with_the_same_weights():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)
    i, repel, attract = 400, 500.0, 2.0
    sigma = ((1 - abar) / abar).sqrt()
    now, then = sigma[i].item(), sigma[i - 1].item()
    net = classifier(IMAGES, (3, 8, 8)).double()
    x = torch.randn(4, 3, 8, 8, generator=rng(), dtype=torch.float64)
    source_t = torch.randn(4, 3, 8, 8, generator=rng(1), dtype=torch.float64)
    egsde = EGSDE(teacher, net, SIGMA_0, 1, repel, attract, 4)
    ours = ancestral_step(x, denoise(teacher, x, now), now, then, rng(2))
    ours = ours - (now**2 - then**2) * egsde.energy_gradient(x, source_t, now)

    # In y = sqrt(abar) x, with eps for D, and the classifier a function of y.
    levels = x.new_full((4,), now)
    y, source_y = (abar[i].sqrt() * x).requires_grad_(), abar[i].sqrt() * source_t
    noise = (x - teacher(x, levels)) / now
    mean = (y - betas[i] / (1 - abar[i]).sqrt() * noise) / (1 - betas[i]).sqrt()
    f_y, f_s = (net.features(of / abar[i].sqrt(), levels) for of in (y, source_y))
    energy = repel * cosine_similarity(f_y, f_s, dim=1).mean(dim=(1, 2))
    energy = energy + attract * (low_pass(y, 4, "linear") - low_pass(source_y, 4, "linear")).square().sum(dim=(1, 2, 3))
    drift = -betas[i] / (1 - betas[i]).sqrt() * torch.autograd.grad(energy.sum(), y)[0]
    posterior = betas[i] * (1 - abar[i - 1]) / (1 - abar[i])
    theirs = mean + drift + posterior.sqrt() * noise_like(x, rng(2))
    torch.testing.assert_close(ours, (theirs / abar[i - 1].sqrt()).detach())
    assert drift.abs().max().item() > 1e-3  # it is not a comparison of nothing
    assert sigma[499].item() == pytest.approx(3.42, abs=0.01)  # the starting point that the docstring names


def test_the_classifier_is_left_as_it_was():
    net = classifier(POINTS, (2,))
    before = [p.clone() for p in net.parameters()]
    EGSDE(teacher, net, SIGMA_0, 3, 5.0, 1.0, 1)(torch.zeros(4, 2), rng())
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    frozen = net.requires_grad_(False)
    assert EGSDE(teacher, frozen, SIGMA_0, 3, 5.0, 1.0, 1)(torch.zeros(4, 2), rng()).isfinite().all()


def test_nfe_is_the_number_of_calls_of_the_teacher():
    calls = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma)
        return teacher(x, sigma)

    egsde = EGSDE(counted, classifier(IMAGES, (3, 8, 8)), SIGMA_0, 6, 5.0, 1.0, 4)
    out = egsde(torch.zeros(2, 3, 8, 8), rng())
    assert out.shape == (2, 3, 8, 8)
    assert not out.requires_grad
    assert len(calls) == egsde.nfe == 6


def test_the_classifier_gives_logits_and_features():
    sigma = torch.tensor([0.1, 2.0, 50.0])
    points, images = classifier(POINTS, (2,)), classifier(IMAGES, (3, 8, 8))
    assert points(torch.zeros(3, 2), sigma).shape == images(torch.zeros(3, 3, 8, 8), sigma).shape == (3,)
    assert points.features(torch.zeros(3, 2), sigma).shape == (3, 16)
    assert images.features(torch.zeros(3, 3, 8, 8), sigma).shape == (3, 16, 4, 4)
    # It sees the noise level by itself, not only by the scale of its input.
    assert len(points(torch.zeros(3, 2), sigma).unique()) == 3
    assert len(images(torch.zeros(3, 3, 8, 8), sigma).unique()) == 3


class KnowsNothing(nn.Module):
    def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        return torch.zeros(len(x_t))


def test_the_domain_loss_is_the_mean_of_both_cross_entropies():
    net = classifier(POINTS, (2,))
    x, y, e, f = (torch.randn(5, 2, generator=rng(i)) for i in range(4))
    sigma = torch.rand(5, generator=rng(4)) + 0.1
    source, target = net(x + sigma[:, None] * e, sigma), net(y + sigma[:, None] * f, sigma)
    expected = binary_cross_entropy_with_logits(source, torch.zeros(5), reduction="none")
    expected = (expected + binary_cross_entropy_with_logits(target, torch.ones(5), reduction="none")) / 2
    torch.testing.assert_close(domain_loss(net, x, y, sigma, e, f), expected)
    assert domain_loss(KnowsNothing(), x, y, sigma, e, f).tolist() == pytest.approx([math.log(2)] * 5)


class Bayes(nn.Module):
    """log p_t^T / p_t^S of N(1, 0.3^2) against N(-0.5, 0.6^2)."""

    def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        target, source = (0.3**2 + sigma**2).sqrt(), (0.6**2 + sigma**2).sqrt()
        p_target = torch.distributions.Normal(1.0, target).log_prob(x_t[:, 0])
        return p_target - torch.distributions.Normal(-0.5, source).log_prob(x_t[:, 0])


def test_training_brings_the_classifier_to_the_ratio_of_densities():
    net, draw = classifier(POINTS, (1,)), rng()

    def loss(of: nn.Module, n: int) -> Tensor:
        x, y, e, f = (torch.randn(n, 1, generator=draw) for _ in range(4))
        sigma = (torch.randn(n, generator=draw) * 1.2 - 0.8).exp()
        return domain_loss(of, -0.5 + 0.6 * x, 1 + 0.3 * y, sigma, e, f).mean()

    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss(net, 512).backward()
        optimizer.step()
    draw.manual_seed(9)
    found = loss(net, 100_000).item()
    draw.manual_seed(9)
    # The excess is a mean KL divergence between Bernoulli laws, on the same samples: a hundredth of a nat.
    excess = found - loss(Bayes(), 100_000).item()
    assert -0.001 < excess < 0.01
