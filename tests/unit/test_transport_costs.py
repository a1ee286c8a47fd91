"""Transport costs: ranges, values and gradients by hand, the blur against SciPy, and the way from params.yaml."""

import math
from pathlib import Path

import pytest
import torch
from lpips_weights import SIDE, image, largest_lpips, saved_lpips, with_positive_heads
from torch import nn

from rdmd import config
from rdmd.config.training import TransportCost
from rdmd.distillation.costs import Cost, FeatureCost, Huber, LowPass, blur_matrix, l1, squared_l2
from rdmd.errors import UserError
from rdmd.evaluation.classifier import FeatureClassifier, save_classifier
from rdmd.files import sha256_of
from rdmd.networks.classifier import ClassifierNet
from rdmd.networks.lpips import LPIPS
from rdmd.pipeline.jobs import cost_weights
from rdmd.training.distill import build_cost
from rdmd.training.run_config import DistillRun, Shards, Weights, fingerprint

CPU = torch.device("cpu")
DIGITS = Path(__file__).parents[2] / "experiments" / "digits.yaml"


def frozen(module: nn.Module) -> nn.Module:
    return module.double().eval().requires_grad_(False)


def classifier_net() -> ClassifierNet:
    torch.manual_seed(0)
    return frozen(ClassifierNet(SIDE, 16, 3))


def small_lpips() -> LPIPS:
    """LPIPS on a trunk of two slices."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.ReLU()]
    return frozen(with_positive_heads(LPIPS(layers, [2, 5])))


# Each cost with the top of its range for images in [-1, 1].
COSTS: dict[str, tuple[Cost, float]] = {
    "squared_l2": (squared_l2, 4.0),
    "l1": (l1, 2.0),
    "huber": (Huber(0.1), 0.39),
    "huber, wide": (Huber(5.0), 4.0),
    "low_pass": (LowPass(1.0, SIDE, CPU), 4.0),
    "low_pass, wide": (LowPass(30.0, SIDE, CPU), 4.0),
    "features": (FeatureCost(classifier_net().embed), 4.0),
    "lpips": (small_lpips(), largest_lpips(small_lpips())),
}
EVERY = pytest.mark.parametrize(("cost", "top"), COSTS.values(), ids=COSTS)
PIXELS = [name for name in COSTS if name not in ("features", "lpips")]


# --- all of them --------------------------------------------------------------------------------------------


@EVERY
def test_each_cost_keeps_to_its_range_and_is_zero_for_an_image_itself(cost: Cost, top: float):
    white = torch.ones(3, 3, SIDE, SIDE, dtype=torch.float64)
    red = -white
    red[:, 0] = 1
    corners = image(0).sign()
    for x in (white, -white, red, corners, image(1)):
        assert cost(x, x).tolist() == [0, 0, 0]
        for y in (white, -white, red, corners, image(2)):
            found = cost(x, y)
            assert found.shape == (3,)
            assert (found >= 0).all()
            assert (found <= top + 1e-9).all()  # rounding in float64
    assert (cost(white, -white) > 0).all()


@pytest.mark.parametrize("name", PIXELS)
def test_pixel_costs_reach_the_top_of_their_range_between_black_and_white(name: str):
    cost, top = COSTS[name]
    white = torch.ones(2, 3, SIDE, SIDE, dtype=torch.float64)
    torch.testing.assert_close(cost(white, -white), torch.full((2,), top, dtype=torch.float64))


@EVERY
def test_gradients_agree_with_finite_differences(cost: Cost, top: float):
    # Random values: no pixel is within the step, 1e-6, of a kink (|d| = 0 or delta; a ReLU or maximum at a tie).
    x, y = image(3, batch=2), image(4, batch=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: cost(x, y), (y,), fast_mode=True)
    (gradient,) = torch.autograd.grad(cost(x, y).sum(), y)
    assert gradient.abs().sum() > 0


@EVERY
def test_a_sample_does_not_see_its_neighbours_and_costs_are_symmetric(cost: Cost, top: float):
    x, y = image(5), image(6)
    alone = torch.cat([cost(x[i : i + 1], y[i : i + 1]) for i in range(3)])
    # The order of sums in a batch of another size.
    torch.testing.assert_close(cost(x, y), alone, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(cost(x, y), cost(y, x), rtol=1e-12, atol=1e-14)


@EVERY
def test_the_gradient_at_the_image_itself_is_finite(cost: Cost, top: float):
    """A generator that returns its source must not stop the run."""
    x = image(7)
    x[0] = 1.0  # where activations may all be dead
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cost(x, y).sum(), y)
    assert gradient.isfinite().all()


# --- pixel by pixel -----------------------------------------------------------------------------------------


def test_values_by_hand():
    x, y = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, -1.0]])  # differences 0.5 and 2
    assert squared_l2(x, y).item() == pytest.approx((0.25 + 4) / 2)
    assert l1(x, y).item() == pytest.approx(1.25)
    # Squared below delta = 1; above it 1 (2 * 2 - 1) = 3.
    assert Huber(1.0)(x, y).item() == pytest.approx((0.25 + 3) / 2)


def test_huber_is_twice_torchs_and_lies_between_l1_and_squared_l2():
    x, y = image(8), image(9)
    for delta in (0.01, 0.3, 1.0):
        theirs = nn.functional.huber_loss(x, y, reduction="none", delta=delta).flatten(1).mean(1)
        torch.testing.assert_close(Huber(delta)(x, y), 2 * theirs)
        assert (Huber(delta)(x, y) <= torch.minimum(squared_l2(x, y), 2 * delta * l1(x, y))).all()
    torch.testing.assert_close(Huber(2.0)(x, y), squared_l2(x, y))
    # The largest departure from the limit is delta / 2 a pixel.
    torch.testing.assert_close(Huber(1e-8)(x, y) / 2e-8, l1(x, y), rtol=0, atol=1e-8)


# --- the blur -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "side"), [(0.4, 8), (1.0, 8), (1.5, 5), (3.0, 8)])
def test_the_blur_is_scipys(sigma: float, side: int):
    from scipy.ndimage import gaussian_filter

    pixels, blur = image(10, batch=1, side=side)[0, 0], blur_matrix(sigma, side)
    theirs = gaussian_filter(pixels.numpy(), sigma, mode="reflect", radius=math.ceil(4 * sigma))
    torch.testing.assert_close(blur @ pixels @ blur.T, torch.tensor(theirs), rtol=0, atol=1e-12)


def test_the_blur_is_symmetric_and_keeps_constants():
    for sigma, side in ((0.1, 8), (1.0, 8), (2.0, 3), (50.0, 8)):
        blur = blur_matrix(sigma, side)
        torch.testing.assert_close(blur, blur.T, rtol=0, atol=1e-15)
        torch.testing.assert_close(blur.sum(1), torch.ones(side, dtype=torch.float64))


@pytest.mark.parametrize("k", range(SIDE))
def test_each_cosine_is_damped_by_the_kernels_transfer_function(k: int):
    sigma = 1.0
    x = image(11, batch=1)
    wave = torch.cos(math.pi * k * (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE)
    y = x + 0.1 * wave  # along a row, alike in every row
    # The Fourier transform of a Gaussian, with its alias since the kernel is sampled.
    omega = math.pi * k / SIDE
    gain = sum(math.exp(-((w * sigma) ** 2) / 2) for w in (omega, 2 * math.pi - omega))
    found = (LowPass(sigma, SIDE, CPU)(x, y) / squared_l2(x, y)).sqrt().item()
    # The mass beyond four sigma, where the kernel is cut.
    assert found == pytest.approx(gain, abs=1e-4)


def test_a_narrow_blur_is_squared_l2_and_a_wide_one_sees_the_mean_colour_alone():
    x, y = image(12), image(13)
    torch.testing.assert_close(LowPass(0.01, SIDE, CPU)(x, y), squared_l2(x, y))
    colours = (x - y).mean(dim=(2, 3)).square().mean(1)
    torch.testing.assert_close(LowPass(100.0, SIDE, CPU)(x, y), colours, rtol=0, atol=1e-6)


def test_the_low_pass_cost_is_blind_to_a_chequerboard_and_sees_a_colour():
    x = 0.5 * image(14)
    place = torch.arange(SIDE)
    board = 1.0 - 2.0 * ((place[:, None] + place) % 2)
    tint = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).view(3, 1, 1)
    cost = LowPass(1.5, SIDE, CPU)
    assert (cost(x, x + 0.5 * board) < 1e-3 * squared_l2(x, x + 0.5 * board)).all()
    torch.testing.assert_close(cost(x, x + tint), squared_l2(x, x + tint))
    assert (cost(x, image(15)) <= squared_l2(x, image(15))).all()


# --- features -----------------------------------------------------------------------------------------------


def test_feature_costs_by_hand():
    cost = FeatureCost(lambda x: x.flatten(1)[:, :2])
    x = torch.tensor([[[[3.0, 4.0]]]])
    for other, expected in (([30.0, 40.0], 0.0), ([-4.0, 3.0], 2.0), ([-3.0, -4.0], 4.0), ([4.0, 3.0], 2 - 48 / 25)):
        y = torch.tensor([[[other]]])
        assert cost(x, y).item() == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_a_network_cost_reaches_the_image_and_not_the_network(tmp_path: Path):
    for settings, weights in (
        (config.FeatureCost(name="features", weights=tmp_path / "apart"), saved_classifier(tmp_path / "apart")),
        (config.LPIPS(name="lpips", weights=tmp_path / "a.pth"), saved_lpips(tmp_path / "a.pth")),
    ):
        side = 32 if settings.name == "lpips" else SIDE
        cost = build_cost(settings, weights, (3, side, side), CPU)
        x, y = image(1, side=side, dtype=torch.float32), image(2, side=side, dtype=torch.float32).requires_grad_()
        cost(x, y).sum().backward()
        assert (y.grad.flatten(1).norm(dim=1) > 0).all()
        network = cost if settings.name == "lpips" else cost.features.__self__
        assert all(not weight.requires_grad and weight.grad is None for weight in network.parameters())
        assert not network.training


def test_the_differentiable_features_are_those_of_the_evaluation():
    net = ClassifierNet(SIDE, 16, 3)
    images = torch.randint(256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    torch.testing.assert_close(net.embed(images / 127.5 - 1), FeatureClassifier(net, SIDE)(images))


# --- from params.yaml ---------------------------------------------------------------------------------------


def settings_with(cost: object, experiment: Path = DIGITS) -> config.Settings:
    import yaml

    given = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    given["distill"]["cost"] = cost
    return config.parse(yaml.safe_dump(given), "params.yaml")


def saved_classifier(folder: Path, side: int = SIDE) -> Weights:
    """A feature network of random weights."""
    torch.manual_seed(0)
    card = save_classifier(FeatureClassifier(ClassifierNet(side, 16, 3), side), folder, [0, 1, 2], 1.0, 1.0, "nothing")
    return Weights(path=folder / "model.safetensors", sha256=card.sha256)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("squared_l2", config.SquaredL2(name="squared_l2")),
        ({"name": "l1"}, config.L1(name="l1")),
        ("huber", config.Huber(name="huber", delta=0.1)),
        ({"name": "huber", "delta": 0.3}, config.Huber(name="huber", delta=0.3)),
        ({"name": "low_pass", "sigma": 2.0}, config.LowPass(name="low_pass", sigma=2.0)),
        ({"name": "features", "weights": "apart"}, config.FeatureCost(name="features", weights=Path("apart"))),
    ],
)
def test_a_cost_is_a_bare_name_or_a_section(given: object, expected: TransportCost):
    settings = settings_with(given)
    assert settings.distill.cost == expected
    # As in run.json.
    assert config.Distill.model_validate_json(settings.distill.model_dump_json()).cost == expected


def test_the_default_is_the_cost_of_the_theorem():
    assert config.load(DIGITS).distill.cost == config.SquaredL2(name="squared_l2")


@pytest.mark.parametrize(
    ("experiment", "cost", "told"),
    [
        ("swissroll", "low_pass", "distill.cost is 'low_pass', which compares images"),
        ("swissroll", {"name": "features", "weights": "a"}, "distill.cost is 'features', which compares images"),
        ("swissroll", {"name": "lpips", "weights": "a"}, "distill.cost is 'lpips', which compares images"),
        ("digits", {"name": "features", "weights": "models/features"}, "by which the evaluation measures realism"),
        ("digits", {"name": "lpips", "weights": "a"}, "needs images of 32x32 or more"),
        ("digits", "l3", "`distill.cost`: 'l3' is no transport cost; use one of squared_l2, l1, huber, low_pass"),
        ("digits", {"name": "huber", "delta": 0}, "`distill.cost.delta` is 0"),
    ],
)
def test_costs_that_do_not_fit_are_refused(experiment: str, cost: object, told: str):
    with pytest.raises(UserError, match=r"^params\.yaml: ") as error:
        settings_with(cost, DIGITS.with_name(f"{experiment}.yaml"))
    assert told in str(error.value)


def test_every_name_builds_its_cost(tmp_path: Path):
    white = torch.ones(2, 3, SIDE, SIDE)
    tops = {"squared_l2": 4.0, "l1": 2.0, "huber": 0.39, "low_pass": 4.0}
    for name, top in tops.items():
        settings = settings_with(name)
        cost = build_cost(settings.distill.cost, None, settings.sample_shape, CPU)
        torch.testing.assert_close(cost(white, -white), torch.full((2,), top))
    wide = build_cost(settings_with({"name": "low_pass", "sigma": 100.0}).distill.cost, None, (3, SIDE, SIDE), CPU)
    board = white.clone()
    board[..., ::2] = -1
    assert wide(0 * white, board).max() < 1e-6
    # Points have costs too.
    assert build_cost(config.L1(name="l1"), None, (2,), CPU)(torch.ones(3, 2), torch.zeros(3, 2)).tolist() == [1, 1, 1]


def test_the_weights_of_a_cost_are_found_and_hashed(tmp_path: Path):
    def needed(settings: config.Settings) -> Weights | None:
        return cost_weights(settings.distill.cost, settings.preprocess.resolution, tmp_path)

    assert needed(settings_with("huber")) is None
    apart = {"name": "features", "weights": "apart"}
    with pytest.raises(UserError, match="rdmd features"):
        needed(settings_with(apart))
    saved = saved_classifier(tmp_path / "apart")
    assert needed(settings_with(apart)) == saved
    assert saved.sha256 == sha256_of(saved.path)
    saved_classifier(tmp_path / "other", side=16)
    with pytest.raises(UserError, match=r"images of 16x16, but preprocess.resolution is 8"):
        needed(settings_with({"name": "features", "weights": str(tmp_path / "other")}))
    mnist = settings_with({"name": "lpips", "weights": "a.pth"}, DIGITS.with_name("colored_mnist.yaml"))
    with pytest.raises(UserError, match=r"a\.pth are not a file"):
        needed(mnist)
    saved = saved_lpips(tmp_path / "a.pth")
    assert needed(mnist) == saved


def distill_run(**given: object) -> DistillRun:
    shards = Shards(path=Path("a"), digest="a")
    base = {
        "experiment": "digits",
        "seed": 0,
        "sample_shape": (3, 8, 8),
        "network": config.load(DIGITS).network,
        "target": shards,
        "source": shards,
        "teacher": Weights(path=Path("a"), sha256="a"),
        "lam": 0.1,
        "precision": "float32",
        "processes": 1,
    }
    return DistillRun(**base | given)


def test_a_runs_fingerprint_knows_the_cost_and_its_weights_by_hash_and_not_by_place():
    def named(cost: object, place: str = "a", sha256: str = "1") -> str:
        run = distill_run(settings=settings_with(cost).distill, cost_weights=Weights(path=Path(place), sha256=sha256))
        return fingerprint(run)

    here = {"name": "features", "weights": "here"}
    assert named(here) == named({"name": "features", "weights": "there"}, place="b")
    wide = {"name": "huber", "delta": 1}
    different = [named(here), named(here, sha256="2"), named("l1"), named("huber"), named(wide)]
    assert len(set(different)) == len(different)
