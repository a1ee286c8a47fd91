"""CUT: the contrastive loss by hand, and a short training that moves the colour and keeps the shape."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from rdmd import config
from rdmd.baselines.cut import ContrastiveGenerator, Discriminator, discriminator_loss, encoder_layers, patch_nce
from rdmd.data.sampling import StepRandom
from rdmd.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from rdmd.training.cut import CUTObjective
from rdmd.training.run_config import CUTRun, Shards
from tests.objectives import CPU, Materials, accelerator, take_step

NETWORK = config.ImageNetwork(kind="ddpmpp", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4])
SHAPE = (3, 8, 8)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patch_nce_by_hand():
    # Two places: the first query is its own key and at right angles to the other one, the second has the cosine 0.6 to
    # its key and 0.8 to the negative.
    query = torch.tensor([[[1.0, 0.0], [0.8, 0.6]]])
    key = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    query.requires_grad_()
    right = math.log(1 + math.exp(-1 / 0.07))
    wrong = math.log(1 + math.exp((0.8 - 0.6) / 0.07))
    loss = patch_nce(query, key)
    assert loss.tolist() == pytest.approx([(right + wrong) / 2])
    loss.sum().backward()
    assert key.grad is None
    assert query.grad is not None


def test_patch_nce_is_least_at_equal_features_and_log_s_at_features_that_say_nothing():
    features = normalize(torch.randn(4, 16, 32, generator=rng()), dim=2)
    equal = patch_nce(features, features)
    assert (equal < patch_nce(features, normalize(torch.randn(4, 16, 32, generator=rng(1)), dim=2))).all()
    # Orthogonal patches: only exp(-1 / 0.07) of each negative is left.
    assert patch_nce(torch.eye(16)[None], torch.eye(16)[None]).item() < 1e-4
    blank = torch.ones(4, 16, 1)
    torch.testing.assert_close(patch_nce(blank, blank), torch.full((4,), math.log(16)))


def test_negatives_are_of_the_same_image():
    features = normalize(torch.randn(2, 5, 8, generator=rng()), dim=2)
    other = normalize(torch.randn(2, 5, 8, generator=rng(1)), dim=2)
    alone = torch.cat([patch_nce(features[i : i + 1], other[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(patch_nce(features, other), alone)


def test_the_discriminators_loss_is_zero_for_scores_of_0_and_1():
    y = torch.ones(3, *SHAPE)
    assert discriminator_loss(lambda image: image.mean((1, 2, 3))[:, None], 0 * y, y).tolist() == [0, 0, 0]
    assert discriminator_loss(lambda image: image.mean((1, 2, 3))[:, None], y, 0 * y).tolist() == [1, 1, 1]


def test_layers_are_the_pixels_and_a_level_each_and_all_weights_learn():
    torch.manual_seed(0)
    G, D = ContrastiveGenerator(NETWORK, SHAPE, patches=10, embedding=32), Discriminator(NETWORK, SHAPE)
    x, y = torch.randn(2, 4, *SHAPE, generator=rng())
    assert [tuple(layer.shape[1:]) for layer in encoder_layers(G.generator.model, x)] == [SHAPE, (8, 8, 8), (16, 4, 4)]
    losses = G(x, y, D, torch.randperm(64, generator=rng()))
    assert losses.shape == (4, 2)
    losses.mean().backward()
    assert [name for name, weight in G.named_parameters() if weight.grad is None] == []


def test_an_image_is_nearer_to_itself_than_to_another():
    torch.manual_seed(0)
    G = ContrastiveGenerator(NETWORK, SHAPE, patches=64, embedding=32)
    x = torch.randn(8, *SHAPE, generator=rng())
    order = torch.randperm(64, generator=rng(2))
    assert (G.nce(x, x, order) < G.nce(x, x.flip(0), order)).all()


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials.make("digits", tmp_path_factory.mktemp("cut"))


def objective(materials: Materials, nce_weight: float = 1.0, **settings: object) -> CUTObjective:
    digits = materials.settings
    run = CUTRun(
        settings=config.CUT(
            **{"steps": 60, "batch": 16, "lr": 2e-3, "decay": "constant", "ema": 0.9, "embedding": 64} | settings
        ),
        nce_weight=nce_weight,
        source=Shards(path=materials.root / "source", digest="source"),
        target=Shards(path=materials.root / "target", digest="target"),
        experiment="test",
        seed=0,
        sample_shape=digits.sample_shape,
        network=digits.network,
        precision="float32",
        processes=1,
    )
    return CUTObjective(run, accelerator())


class Coloured:
    """Smooth random images with a mean colour, as a domain."""

    def __init__(self, colour: tuple[float, float, float]) -> None:
        self.colour = torch.tensor(colour).view(3, 1, 1)

    def batch(self, n: int, random: StepRandom, name: str) -> Tensor:
        shapes = torch.randn(n, 1, 3, 3, generator=random.stream(name))
        return self.colour + 0.3 * interpolate(shapes, size=(8, 8), mode="bilinear")


def test_a_short_training_takes_the_targets_colour_and_keeps_the_sources_shape(materials: Materials):
    cut = objective(materials, steps=150)
    source, target = Coloured((0.5, -0.5, -0.5)), Coloured((-0.5, 0.5, -0.5))
    cut.source, cut.target = source, target
    logged = [take_step(cut, t) for t in range(150)]
    x = source.batch(64, StepRandom(1, 0, 0, CPU), "test")
    y = cut.kept()(x)
    assert y.shape == x.shape
    # The source is 1 away in red and in green.
    assert (y.mean((0, 2, 3)) - target.colour.flatten()).abs().max().item() < 0.25
    shape, kept = (image - image.mean((2, 3), keepdim=True) for image in (x, y))
    assert torch.corrcoef(torch.stack([shape.flatten(), kept.flatten()]))[0, 1].item() > 0.7
    first, last = ([step["nce_loss"].item() for step in part] for part in (logged[:10], logged[-10:]))
    assert sum(last) < 0.8 * sum(first)


def test_two_runs_are_equal_and_a_resumed_one_too(materials: Materials, tmp_path: Path):
    straight = objective(materials)
    for t in range(6):
        take_step(straight, t)
    stopped = objective(materials)
    for t in range(3):
        take_step(stopped, t)
    save_checkpoint(tmp_path / "checkpoint", stopped, Progress(3, 1.0))
    resumed = objective(materials)
    assert load_checkpoint(tmp_path / "checkpoint", resumed).steps == 3
    for t in range(3, 6):
        take_step(resumed, t)
    for name, module in straight.modules.items():
        for a, b in zip(module.parameters(), resumed.modules[name].parameters(), strict=True):
            assert torch.equal(a, b)
    for a, b in zip(straight.kept().parameters(), resumed.kept().parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_discriminator_learns_from_its_own_loss_alone(materials: Materials):
    cut = objective(materials, beta1=0.0)
    take_step(cut)
    assert all(weight.grad is None for module in cut.modules.values() for weight in module.parameters())
    assert all(weight.requires_grad for weight in cut.modules["discriminator"].parameters())
