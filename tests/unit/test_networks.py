"""The networks: EDM's published numbers, the preconditioning's closed forms, and weights on disk."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rdmd.config import ImageNetwork, Network, PointNetwork
from rdmd.diffusion.preconditioning import EDMPrecond
from rdmd.errors import UserError
from rdmd.networks.build import build_denoiser, load_weights, save_weights
from rdmd.networks.unet import group_norm, sinusoidal

FIXTURES = Path(__file__).parent / "fixtures"
SMALL = ImageNetwork(kind="ddpmpp", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4])
POINTS = PointNetwork(kind="mlp", width=16)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These networks are too small to gain from more threads, which cost much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["edm_ddpmpp_small32", "edm_ddpmpp_afhqv2"])
def published(request: pytest.FixtureRequest) -> tuple[dict, EDMPrecond]:
    """Arguments, names, shapes and outputs of the public EDM reference network; ours with its weights."""
    case = json.loads((FIXTURES / f"{request.param}.json").read_text(encoding="utf-8"))
    network = ImageNetwork(
        kind="ddpmpp",
        model_channels=case["model_channels"],
        channel_mult=case["channel_mult"],
        num_blocks=case["num_blocks"],
        attn_resolutions=case["attn_resolutions"],
        augment_dim=case["augment_dim"],
        sigma_data=case["sigma_data"],
    )
    side = case["img_resolution"]
    denoiser = build_denoiser(network, (3, side, side)).eval()
    fill_by_formula(denoiser.state_dict())
    return case, denoiser


def fill_by_formula(state: dict[str, Tensor]) -> None:
    """The weights of the reference outputs: a sine of the index, with a phase of the name."""
    for name, tensor in state.items():
        if "resample_filter" in name:
            continue
        phase = sum(map(ord, name)) % 97
        scale = 0.5 / math.sqrt(tensor[0].numel()) if tensor.dim() > 1 else 0.1
        value = torch.sin(0.37 * torch.arange(tensor.numel(), dtype=torch.float64) + phase) * scale
        if tensor.dim() == 1 and "norm" in name and name.endswith("weight"):
            value = 1 + value
        tensor.copy_(value.reshape(tensor.shape))


def randomised(denoiser: EDMPrecond, seed: int) -> EDMPrecond:
    """Weights of ordinary size everywhere, so that no branch is near zero as it is at the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return denoiser


def test_state_dict_is_the_published_one(published: tuple[dict, EDMPrecond]) -> None:
    case, denoiser = published
    shapes = {name: list(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    assert list(shapes.items()) == list(case["state_dict"].items())
    trained = [math.prod(shape) for name, shape in shapes.items() if "resample_filter" not in name]
    assert sum(trained) == case["parameters"]


def test_outputs_are_the_published_ones(published: tuple[dict, EDMPrecond]) -> None:
    case, denoiser = published
    side = case["img_resolution"]
    ramp = torch.arange(2 * 3 * side * side, dtype=torch.float64)
    x = torch.sin(0.05 * ramp).reshape(2, 3, side, side).float()
    for level, expected in case["outputs"].items():
        sigma = float(level)
        with torch.no_grad():
            out = denoiser(x * (1 + sigma), torch.tensor([sigma, sigma])).double().flatten()
        ends = torch.cat([out[:8], out[-8:]])
        reference = torch.tensor(expected["first8"] + expected["last8"], dtype=torch.float64)
        # float32 through some hundred layers leaves up to 3e-6.
        assert (ends - reference).norm() / reference.norm() < 1e-4, level
        assert abs(out.mean().item() - expected["mean"]) < 1e-4 * expected["std"], level
        assert out.std().item() == pytest.approx(expected["std"], rel=1e-4), level
        assert out.abs().max().item() == pytest.approx(expected["abs_max"], rel=1e-4), level


class Affine(nn.Module):
    """F(x, c_noise) = a x + b c_noise."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.a * x + self.b * c_noise.reshape(-1, *(1,) * (x.dim() - 1))


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 2)], ids=["images", "points"])
def test_preconditioning_is_equation_7(shape: tuple[int, ...]) -> None:
    s, sigma = 0.7, torch.tensor([0.002, 0.3, 1.0, 80.0])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out = EDMPrecond(Affine(3.0, 2.0), sigma_data=s)(x, sigma)
    n2 = (sigma.double() ** 2 + s**2).reshape(-1, *(1,) * (len(shape) - 1))
    each = sigma.double().reshape(n2.shape)
    f = 3.0 * x.double() / n2.sqrt() + 2.0 * each.log() / 4
    expected = s**2 / n2 * x.double() + each * s / n2.sqrt() * f
    # Six float32 operations.
    torch.testing.assert_close(out.double(), expected, rtol=2e-6, atol=1e-6)


def test_without_a_network_it_is_the_best_denoiser_of_a_gaussian() -> None:
    """For data N(0, sigma_data^2 I) the posterior mean is s^2 x / (s^2 + sigma^2), for one sigma or many."""
    x, s = torch.tensor([[1.0, -2.0], [0.5, 4.0]]), 0.5
    denoiser = EDMPrecond(Affine(0.0, 0.0), sigma_data=s)
    torch.testing.assert_close(denoiser(x, 1.5), s**2 / (s**2 + 1.5**2) * x)
    torch.testing.assert_close(denoiser(x, torch.tensor(1.5)), denoiser(x, torch.tensor([1.5, 1.5])))


@pytest.mark.parametrize(("network", "shape"), [(SMALL, (3, 8, 8)), (POINTS, (2,))], ids=["ddpmpp", "mlp"])
class TestDenoisers:
    """What every denoiser that `build_denoiser` makes does."""

    def test_is_the_identity_without_noise(self, network: Network, shape: tuple[int, ...]) -> None:
        denoiser = randomised(build_denoiser(network, shape), seed=1)
        x = torch.randn(2, *shape)
        # D - x is of the order of sigma F, and F of order one.
        torch.testing.assert_close(denoiser(x, 1e-6), x, rtol=0, atol=1e-4)

    def test_starts_as_the_gaussian_one(self, network: Network, shape: tuple[int, ...]) -> None:
        """The last layer starts at 1e-5 of its usual size, so F begins at zero."""
        denoiser = build_denoiser(network, shape)
        x = torch.randn(2, *shape)
        torch.testing.assert_close(denoiser(x, 0.5), x / 2, rtol=0, atol=1e-3)

    def test_sees_the_noise_level_and_each_sample_alone(self, network: Network, shape: tuple[int, ...]) -> None:
        denoiser = randomised(build_denoiser(network, shape), seed=2)
        x = torch.randn(1, *shape)
        c_noise = torch.tensor([-1.0, 0.0, 1.0])
        together = denoiser.model(x.expand(3, *shape), c_noise)
        assert (together[0] - together[1]).abs().max() > 1e-2
        for i in range(3):
            alone = denoiser.model(x, c_noise[i : i + 1])[0]
            # The same sums in another order.
            torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-5)

    def test_every_parameter_gets_a_gradient(self, network: Network, shape: tuple[int, ...]) -> None:
        """Distributed training stops at a parameter that gets none."""
        if isinstance(network, ImageNetwork):
            network = network.model_copy(update={"augment_dim": 9})
        denoiser = randomised(build_denoiser(network, shape), seed=3)
        denoiser(torch.randn(4, *shape), torch.tensor([0.1, 0.5, 1.0, 5.0])).square().sum().backward()
        grads = {name: parameter.grad for name, parameter in denoiser.named_parameters()}
        assert [name for name, grad in grads.items() if grad is None or not grad.any()] == []

    def test_bf16_stays_near_float32(self, network: Network, shape: tuple[int, ...]) -> None:
        denoiser = randomised(build_denoiser(network, shape), seed=4)
        x = torch.randn(2, *shape)
        with torch.no_grad():
            exact = denoiser(x, 1.0)
            with torch.autocast("cpu", torch.bfloat16):
                autocast = denoiser(x, 1.0)
            cast = denoiser.to(torch.bfloat16)(x, 1.0)
        for out in (autocast, cast):
            assert out.dtype == torch.float32
            # bf16 keeps 8 bits (4e-3), over about ten layers.
            assert (out - exact).norm() / exact.norm() < 0.05

    def test_weights_survive_the_disk(self, network: Network, shape: tuple[int, ...], tmp_path: Path) -> None:
        denoiser = randomised(build_denoiser(network, shape), seed=5)
        save_weights(denoiser, tmp_path / "weights.safetensors")
        other = build_denoiser(network, shape)
        load_weights(other, tmp_path / "weights.safetensors")
        x = torch.randn(2, *shape)
        assert torch.equal(other(x, 0.7), denoiser(x, 0.7))
        assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_initial_weights_are_edms() -> None:
    """Xavier-uniform: bounded by sqrt(6 / (fan_in + fan_out)); times 1e-5 or sqrt(0.2) where EDM says so."""
    unet = build_denoiser(SMALL.model_copy(update={"model_channels": 32}), (3, 8, 8)).model
    block = unet.enc["4x4_block0"]
    gains = {block.conv0: 1.0, block.affine: 1.0, block.skip: 1.0, block.qkv: math.sqrt(0.2)}
    gains |= {block.conv1: 1e-5, block.proj: 1e-5, unet.dec["8x8_aux_conv"]: 1e-5, unet.map_layer0: 1.0}
    for layer, gain in gains.items():
        weight = layer.weight.detach()
        kernel = weight[0, 0].numel()
        bound = gain * math.sqrt(6 / (kernel * (weight.shape[0] + weight.shape[1])))
        # The largest of the (over 800) uniform draws is within 5% of the bound but for one chance in 1e18.
        assert 0.95 * bound < weight.abs().max() <= bound
        assert not layer.bias.any()


def test_noise_features_are_sines_then_cosines() -> None:
    """Frequencies fall geometrically from 1 to 1/10000, both reached: by a factor of 100 each with three."""
    c_noise = torch.tensor([1.2, -0.5])
    angles = c_noise.double()[:, None] * torch.tensor([1.0, 1e-2, 1e-4], dtype=torch.float64)
    expected = torch.cat([angles.sin(), angles.cos()], dim=1)
    # Rounding of float32.
    torch.testing.assert_close(sinusoidal(c_noise, 6).double(), expected, rtol=1e-6, atol=1e-7)


def test_group_norms_have_edms_number_of_groups_where_it_exists() -> None:
    assert [group_norm(c).num_groups for c in (8, 24, 48, 128, 256, 384, 512)] == [2, 6, 12, 32, 32, 32, 32]
    # 144 = 48 + 96 cannot be parted in 32.
    assert group_norm(144).num_groups == 24


def test_dropout_acts_in_training_alone() -> None:
    network = SMALL.model_copy(update={"dropout": 0.5})
    denoiser = randomised(build_denoiser(network, (3, 8, 8), dropout=True), seed=6)
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(denoiser.train()(x, 1.0), denoiser(x, 1.0))
    assert torch.equal(denoiser.eval()(x, 1.0), denoiser(x, 1.0))


def test_the_point_network_learns_a_denoiser_at_all_noise_levels() -> None:
    """D(x, sigma) = (s^2 x + sigma^2 m) / (s^2 + sigma^2) for N(m, s^2 I), with s other than sigma_data."""
    m, s = torch.tensor([1.0, -0.5]), 0.3
    torch.manual_seed(0)
    denoiser = build_denoiser(PointNetwork(kind="mlp", width=64, depth=2), (2,))
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=3e-3)

    def error() -> Tensor:
        sigma = (torch.randn(512) * 1.2 - 0.6).exp()
        x = m + torch.randn(512, 2) * (s**2 + sigma**2).sqrt()[:, None]
        square = sigma.square()[:, None]
        exact = (s**2 * x + square * m) / (s**2 + square)
        return (denoiser(x, sigma) - exact).square().mean()

    for _ in range(300):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    # A network that knew the mean but not sigma would be off by about s; 300 steps leave a tenth of that.
    assert error().sqrt().item() < 0.1 * s


def test_an_odd_width_is_named() -> None:
    with pytest.raises(UserError, match=r"network\.model_channels` is 9, which is odd"):
        build_denoiser(SMALL.model_copy(update={"model_channels": 9}), (3, 8, 8))


def test_shared_tensors_are_saved_under_each_name(tmp_path: Path) -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    save_weights(module, tmp_path / "w.safetensors")
    saved = load_file(tmp_path / "w.safetensors")
    assert torch.equal(saved["a.weight"], saved["b.weight"])
    assert set(saved) == {"a.weight", "a.bias", "b.weight", "b.bias"}


def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path) -> None:
    denoiser = build_denoiser(SMALL, (3, 8, 8))
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    path = tmp_path / "w.safetensors"
    name = "model.enc.8x8_conv.weight"

    save_file({key: tensor for key, tensor in before.items() if key != name}, path)
    with pytest.raises(UserError, match=rf"no tensor `{name}`"):
        load_weights(denoiser, path)

    save_file(before | {name: torch.zeros(8, 3, 5, 5)}, path)
    with pytest.raises(UserError, match=rf"`{name}` is \(8, 3, 5, 5\), the network's is \(8, 3, 3, 3\)"):
        load_weights(denoiser, path)

    save_file(before | {"model.map_label.weight": torch.zeros(8, 10)}, path)
    with pytest.raises(UserError, match=r"`model\.map_label\.weight` that the network does not know"):
        load_weights(denoiser, path)

    assert all(torch.equal(tensor, before[key]) for key, tensor in denoiser.state_dict().items())


def test_files_that_are_no_weights_are_named(tmp_path: Path) -> None:
    denoiser = build_denoiser(SMALL, (3, 8, 8))
    save_weights(denoiser, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    image = b"\x89PNG\r\n\x1a\n" + bytes(100)
    for content in (b"", image, b"<html>not found</html>", whole[: len(whole) // 2]):
        path = tmp_path / "broken.safetensors"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.safetensors is not a whole safetensors file"):
            load_weights(denoiser, path)
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="is not a file"):
            load_weights(denoiser, path)
