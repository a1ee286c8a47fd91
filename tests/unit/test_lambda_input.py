"""Lambda as an input of one generator: the exact optimum at every lambda, and a start that is the teacher."""

import math

import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from rdmd import config
from rdmd.diffusion.loss import like, noise_like
from rdmd.diffusion.noise import lognormal
from rdmd.distillation.costs import squared_l2
from rdmd.distillation.generator import Generator
from rdmd.distillation.matching import WEIGHTINGS
from rdmd.distillation.rdmd import RDMDLoss, draw_lambdas
from rdmd.networks.build import build_denoiser, load_weights, save_weights
from tests.objectives import Materials, apart, gradients, take_step

RANGE = config.LambdaRange.model_validate({"from": 0.02, "to": 0.5})
S, D = 0.5, 4  # the target's standard deviation, dimensions
IMAGES = config.ImageNetwork(
    kind="ddpmpp", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4], augment_dim=3
)
NETWORKS = [(IMAGES, (3, 8, 8)), (config.PointNetwork(kind="mlp", width=16, depth=2), (2,))]
EACH_NETWORK = pytest.mark.parametrize(("network", "shape"), NETWORKS, ids=["images", "points"])


class Curve(nn.Module):
    """A positive function of lambda: exp of a cubic polynomial of ln(lambda) in the drawn range, -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(4))

    def forward(self, lam: Tensor) -> Tensor:
        low, high = (math.log(end) for end in RANGE.drawn)
        u = 2 * (lam.log() - low) / (high - low) - 1
        return (torch.stack([u**k for k in range(4)], dim=-1) @ self.coefficients).exp()


def test_a_linear_generator_lands_on_the_optimum_at_every_lambda():
    """N(0, I) to N(0, S^2 I), G(x, lambda) = a(lambda) x, generator and fake learned in turn from samples alone.

    a(lambda) must minimise mean_t sigma_t^2 KL(N(0, a^2 + sigma_t^2) || N(0, S^2 + sigma_t^2)) + lambda (1 - a)^2.
    """
    rng = torch.Generator().manual_seed(0)
    noise, loss = lognormal(-0.5, 0.7), RDMDLoss(squared_l2, WEIGHTINGS["unscaled"], sigma_data=0.5)
    a, std = Curve(), Curve()
    of_generator, of_fake = torch.optim.Adam(a.parameters(), lr=2e-3), torch.optim.Adam(std.parameters(), lr=1e-2)

    def denoised(x: Tensor, sigma: Tensor, std: Tensor | float) -> Tensor:
        variance = torch.as_tensor(std**2).view(-1, 1)
        return x * variance / (variance + sigma.view(-1, 1) ** 2)

    kept = []
    for step in range(2500):
        x, lam = torch.randn(1024, D, generator=rng), draw_lambdas(*RANGE.drawn, 1024, rng)
        sigma, eps = noise(len(x), rng), noise_like(x, rng)
        generated = like(a(lam), x) * x
        losses = loss(
            x,
            generated,
            lam,
            fake=lambda x_t, sigma, lam=lam: denoised(x_t, sigma, std(lam)),
            teacher=lambda x_t, sigma: denoised(x_t, sigma, S),
            sigma=sigma,
            eps=eps,
        )
        losses.generator.mean().backward()
        losses.fake.mean().backward()
        for optimizer in (of_generator, of_fake):
            optimizer.step()
            optimizer.zero_grad()
        if step >= 1500:
            kept.append(a.coefficients.detach().clone())
    a.coefficients.data = torch.stack(kept).mean(dim=0)

    levels = noise(4000, torch.Generator().manual_seed(9)).double()

    def exact(lam: float) -> float:
        def objective(value: float) -> float:
            ratio = (value**2 + levels**2) / (S**2 + levels**2)
            matching = (levels**2 * (ratio - 1 - ratio.log()) / 2).mean().item()
            return matching + lam * (1 - value) ** 2

        return minimize_scalar(objective, bounds=(0.05, 1.5), method="bounded").x

    # No lambda is drawn twice, so each of these lies between those drawn. The cubic fits the exact curve to 0.2%, and
    # the mean of 1,000 iterates wanders by as much as the test of one lambda allows.
    for lam in RANGE.spaced(6):
        with torch.no_grad():
            assert a(torch.tensor([lam])).item() == pytest.approx(exact(lam), rel=0.02)
    assert exact(RANGE.to) > 1.3 * exact(RANGE.from_)  # a generator that ignores lambda would fail


def test_lambdas_are_log_uniform_and_stratified():
    n, (low, high) = 1000, RANGE.drawn
    lam = draw_lambdas(low, high, n, torch.Generator().manual_seed(0)).double()
    place = (lam / low).log() / math.log(high / low)
    # One in each n-th part of the range; float32 rounds ln(lambda) in its seventh digit.
    assert ((place * n - torch.arange(n) - 0.5).abs() <= 0.5 + 1e-3).all()


def test_the_range_is_padded_at_both_ends_alike():
    low, high = RANGE.drawn
    width = math.log(RANGE.to / RANGE.from_)
    assert math.log(RANGE.from_ / low) == pytest.approx(0.2 * width)
    assert math.log(high / RANGE.to) == pytest.approx(0.2 * width)


@pytest.mark.parametrize("ends", [{"from": 0.5, "to": 0.02}, {"from": 0, "to": 1}, {"from": -1, "to": 1}, {"to": 1}])
def test_a_range_without_an_order_is_refused(ends: dict[str, float]):
    with pytest.raises(ValidationError):
        config.LambdaRange.model_validate(ends)


@EACH_NETWORK
def test_the_teachers_weights_fit_and_training_begins_at_the_teacher(network, shape, tmp_path):
    torch.manual_seed(0)
    teacher, conditioned = build_denoiser(network, shape), build_denoiser(network, shape, RANGE)
    for weight in teacher.parameters():
        weight.data += 0.1 * torch.randn_like(weight)  # as built, the network's output is almost zero
    save_weights(teacher, tmp_path / "teacher.safetensors")
    load_weights(conditioned, tmp_path / "teacher.safetensors", of_teacher=True)
    x, lam = torch.randn(5, *shape), torch.tensor([0.01, 0.02, 0.1, 0.5, 1.0])
    # Adding the zero embedding changes no bit.
    assert torch.equal(conditioned(x, 1.0, lam), teacher(x, 1.0))


@EACH_NETWORK
def test_a_generator_reads_lambda_for_each_sample(network, shape):
    torch.manual_seed(0)
    denoiser = build_denoiser(network, shape, RANGE)
    for weight in denoiser.parameters():
        weight.data += 0.3 * torch.randn_like(weight)
    generator = Generator(denoiser, 1.0, lambdas=RANGE, lam=0.1)
    x = torch.randn(3, *shape)
    mixed = generator(x, torch.tensor([0.02, 0.1, 0.5]))
    for i, lam in enumerate((0.02, 0.1, 0.5)):
        # Batches of one and of three may round differently in the last digits of float32.
        torch.testing.assert_close(generator(x, lam)[i], mixed[i], rtol=1e-4, atol=1e-5)
    assert torch.equal(generator(x), generator(x, 0.1))
    assert (generator(x, 0.02) - generator(x, 0.5)).abs().max() > 1e-2


def test_the_input_noise_goes_from_end_to_end_of_the_range():
    class Same(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, lam: Tensor) -> Tensor:
            return x

    generator = Generator(Same(), 1.0, (1.0, 0.2), RANGE)
    x, z = torch.zeros(5, 2), torch.ones(5, 2)
    lam = torch.tensor([RANGE.drawn[0], RANGE.from_, math.sqrt(RANGE.from_ * RANGE.to), RANGE.to, RANGE.drawn[1]])
    assert generator(x, lam, z)[:, 0].tolist() == pytest.approx([1.0, 1.0, 0.6, 0.2, 0.2], rel=1e-5)


def test_spaced_lambdas_ascend_and_none_occurs_twice():
    assert RANGE.spaced(3) == [RANGE.from_, pytest.approx(math.sqrt(RANGE.from_ * RANGE.to), rel=0.05), RANGE.to]
    narrow = config.LambdaRange.model_validate({"from": 0.115, "to": 0.12}).spaced(8)
    assert narrow == sorted(set(narrow)) and (narrow[0], narrow[-1]) == (0.115, 0.12)


@pytest.mark.parametrize("experiment", ["digits", "swissroll"])
def test_both_networks_learn_lambda(experiment: str, tmp_path):
    """The embeddings of generator and fake leave zero with the first step, and parts of a batch keep their lambdas."""
    materials = Materials.make(experiment, tmp_path)
    whole = materials.distill({"lam": RANGE}, batch=8, fake_steps=2)
    parts = materials.distill({"lam": RANGE, "compute": config.Compute(accumulate=4)}, batch=8, fake_steps=2)
    logged, logged_parts = take_step(whole), take_step(parts)
    for name in ("generator", "fake"):
        assert whole.modules[name].get_parameter(_last_layer(whole.modules[name])).abs().max() > 0
    # Of float32 sums in another order, over ten layers.
    assert logged_parts["cost"].item() == pytest.approx(logged["cost"].item(), rel=1e-5)
    for name, expected in gradients(whole).items():
        assert apart(gradients(parts)[name], expected) < 3e-5


def _last_layer(module: nn.Module) -> str:
    (name,) = [name for name, _ in module.named_parameters() if name.endswith("embed_lambda.layer1.weight")]
    return name
