"""EDM's augmentation against closed forms, and a network that is trained with it."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdmd import config
from rdmd.data.augmentation import (
    SCALE_STD,
    STRETCH_STD,
    TRANSLATION_STD,
    draw_labels,
    flipped_and_shifted,
    transformed,
)
from rdmd.data.sampling import StepRandom
from rdmd.diffusion.noise import NoisyBatch
from rdmd.networks.build import build_denoiser, load_weights, save_weights
from rdmd.pipeline.experiments import augmentation_advice
from tests.conftest import params
from tests.objectives import Materials, take_step

SIDE = 24
NAMES = ("flip_x", "flip_y", "scale", "cos", "sin", "along", "across", "right", "down")
# Places and weights of the interpolation are float32; pixels are in [-1, 1].
ROUNDING = 2e-5


def pictures(n: int = 3) -> Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def labels_of(n: int = 3, **given: float) -> Tensor:
    return torch.tensor([[given.get(name, 0.0) for name in NAMES]]).expand(n, -1)


def close(found: Tensor, expected: Tensor) -> bool:
    return (found - expected).abs().max().item() < ROUNDING


def test_labels_of_zero_leave_every_bit():
    x = pictures()
    assert torch.equal(transformed(x, labels_of()), x)
    mixed = torch.cat([labels_of(1), labels_of(1, flip_x=1), labels_of(1, scale=1.5)])
    found = transformed(x, mixed)
    assert torch.equal(found[:2], torch.stack([x[0], x[1].flip(2)]))
    assert not close(found[2], x[2])


def test_a_translation_by_whole_pixels_moves_them_and_mirrors_the_border():
    x, pixels = pictures(), 1 / (SIDE * TRANSLATION_STD)
    right = torch.cat([x[..., :3].flip(3), x[..., :-3]], dim=3)
    assert close(transformed(x, labels_of(right=3 * pixels)), right)
    up = torch.cat([x[..., 2:, :], x[..., -2:, :].flip(2)], dim=2)
    assert close(transformed(x, labels_of(down=-2 * pixels)), up)


def test_quarter_turns_and_flips_move_pixels():
    x = pictures()
    assert close(transformed(x, labels_of(cos=-1, sin=1)), x.rot90(1, (2, 3)))
    assert close(transformed(x, labels_of(cos=-2)), x.rot90(2, (2, 3)))
    assert torch.equal(transformed(x, labels_of(flip_y=1)), x.flip(2))
    # Why `draw_labels` draws no y-flip.
    assert close(transformed(x, labels_of(flip_x=1, cos=-2)), x.flip(2))


def test_labels_hold_the_transform():
    """Interpolation keeps a ramp k.p, so that the output is k.M^-1 (p - t) wherever no mirrored pixel reaches: here
    with M from its definition, one factor after the other, in a frame whose y goes up."""
    labels = draw_labels(200, 1.0, torch.Generator().manual_seed(1))
    labels[:, 0] = 0
    # A place in pixels from the centre, y up.
    line = torch.arange(SIDE) - (SIDE - 1) / 2
    x, y = torch.meshgrid(line, -line, indexing="xy")
    k = torch.tensor([0.04, -0.03])
    ramp = (k[0] * x + k[1] * y).expand(len(labels), 1, -1, -1)
    found = transformed(ramp, labels)[:, 0].double()

    def turn(angle: float) -> Tensor:
        return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()

    compared = 0
    for one, picture in zip(labels.double(), found, strict=True):
        _, _, scale, cos, sin, along, across, right, down = one.tolist()
        axis, s = math.atan2(across, along), 2 ** (STRETCH_STD * math.hypot(along, across))
        stretch = turn(axis) @ torch.diag(torch.tensor([s, 1 / s]).double()) @ turn(-axis)
        forward = stretch @ turn(math.atan2(sin, cos + 1)) * 2 ** (SCALE_STD * scale)
        moved = SIDE * TRANSLATION_STD * torch.tensor([right, -down]).double()
        before = torch.stack([x, y], dim=-1).double() - moved
        before = before @ forward.inverse().T
        inside = before.abs().amax(dim=-1) < SIDE / 2 - 2.5
        # torch's bicubic kernel misplaces a ramp by up to 0.048 pixels along each axis (its parameter is -0.75).
        assert ((picture - before @ k.double()).abs()[inside] < 0.05 * k.abs().sum()).all()
        compared += int(inside.sum())
    # A third of the pixels or more come from inside.
    assert compared > 200 * SIDE**2 / 3


def test_each_transform_has_the_probability_that_is_asked_for():
    n = 40_000
    labels = draw_labels(n, 0.15, torch.Generator().manual_seed(0))
    # Four standard errors of a share.
    for columns, share in (([0], 0.5), ([2], 0.15), ([3, 4], 0.15), ([5, 6], 0.15), ([7, 8], 0.15)):
        drawn = (labels[:, columns] != 0).any(dim=1).double().mean().item()
        assert abs(drawn - share) < 4 * math.sqrt(share * (1 - share) / n)
    assert (labels[:, 1] == 0).all()
    # They are drawn apart from each other.
    both = ((labels[:, 2] != 0) & (labels[:, 7] != 0)).double().mean().item()
    assert abs(both - 0.15**2) < 4 * 0.15 / math.sqrt(n)
    assert (draw_labels(n, 0.0, torch.Generator().manual_seed(0))[:, 1:] == 0).all()


def test_parts_of_a_batch_keep_the_labels_of_their_images():
    x = pictures(4)
    labels = draw_labels(4, 1.0, torch.Generator().manual_seed(2))
    parts = NoisyBatch(x, torch.ones(4), x, labels=labels).parts(2)
    assert torch.equal(torch.cat([part.labels for part in parts]), labels)
    assert [part.labels for part in NoisyBatch(x, torch.ones(4), x).parts(2)] == [None, None]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    made = Materials.make("digits", tmp_path_factory.mktemp("digits"))
    network = made.settings.network.model_copy(update={"augment_dim": 9})
    changed = Materials(made.settings.model_copy(update={"network": network}), made.root)
    torch.manual_seed(0)
    save_weights(build_denoiser(network, made.settings.sample_shape), made.root / "teacher.safetensors")
    return changed


def test_a_teacher_learns_its_labels_and_samples_without_them(digits: Materials):
    objective = digits.teacher(augment=0.5)
    learned = objective.modules["denoiser"].model.map_augment.weight
    before = learned.detach().clone()
    for t in range(12):
        take_step(objective, t)
    assert not torch.equal(learned, before)
    averaged = objective.kept()
    x, sigma, none = torch.randn(4, *digits.settings.sample_shape), torch.ones(4), torch.zeros(4, 9)
    some = draw_labels(4, 1.0, torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(averaged(x, sigma), averaged(x, sigma, None, none))
        assert not torch.equal(averaged(x, sigma), averaged(x, sigma, None, some))
    assert objective.trial(5).networks[None](torch.randn(5, *digits.settings.sample_shape)).isfinite().all()
    # Distillation and published networks know the weight, and never use it.
    path = digits.root / "trained.safetensors"
    save_weights(averaged, path)
    plain = build_denoiser(digits.settings.network, digits.settings.sample_shape)
    load_weights(plain, path)
    with torch.no_grad():
        # Weights in another memory layout round otherwise.
        assert torch.allclose(plain(x, sigma), averaged(x, sigma), atol=1e-5)


def test_without_augmentation_a_batch_is_what_the_domain_gives(digits: Materials):
    random = StepRandom(0, 0, 3, torch.device("cpu"))
    plain, augmented = digits.teacher(), digits.teacher(augment=0.15)
    target = plain.target.batch(plain.batch_size, random, "target")
    assert torch.equal(plain.draw(random).x, target) and plain.draw(random).labels is None
    batch = augmented.draw(random)
    assert torch.equal(batch.x, transformed(target, batch.labels)) and not torch.equal(batch.x, target)
    assert torch.equal(batch.eps, plain.draw(random).eps)


def test_flips_and_shifts_are_of_whole_pixels_and_repeat_the_border():
    x, n = pictures(1)[:, :, :6, :6], 4000
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")[0]
    # Shifted by (down, right), each mirrored or not.
    possible = {
        (down, right, flip): moved.flip(2) if flip else moved
        for down in range(-2, 3)
        for right in range(-2, 3)
        for flip in (False, True)
        for moved in [padded[:, 2 - down : 8 - down, 2 - right : 8 - right]]
    }
    found = flipped_and_shifted(x.expand(n, -1, -1, -1), True, 2, torch.Generator().manual_seed(0))
    matches = torch.stack([(found == one).flatten(1).all(dim=1) for one in possible.values()])
    assert (matches.sum(dim=0) == 1).all()
    # Each of the 50 as often as the others: four standard errors of a share.
    assert ((matches.double().mean(dim=1) - 1 / 50).abs() < 4 * math.sqrt(1 / 50 / n)).all()
    only = flipped_and_shifted(x.expand(9, -1, -1, -1), False, 1, torch.Generator().manual_seed(0))
    assert all(any(torch.equal(one, possible[d, r, False]) for d in (-1, 0, 1) for r in (-1, 0, 1)) for one in only)


def test_both_trainings_vary_their_own_images_and_evaluate_them_as_they_are(digits: Materials):
    random = StepRandom(0, 0, 3, torch.device("cpu"))
    for make, name in ((digits.teacher, "target"), (digits.distill, "source")):
        plain, changed = make(), make(flip=True, shift=1)
        before = getattr(plain, name)
        expected = flipped_and_shifted(before.batch(32, random, name), True, 1, random.stream(f"{name} varied"))
        assert torch.equal(getattr(changed, name).batch(32, random, name), expected)
        assert not torch.equal(changed.draw(random).x, plain.draw(random).x)
        assert torch.equal(getattr(changed, name).distinct(9, random, "x"), before.distinct(9, random, "x"))


def test_check_recommends_augmentation_where_images_are_few(tmp_path: Path):
    # Files are counted, not read: of the target 4,000 train, of the source 6,000.
    for name, counts in (("target", {"train": 4000, "test": 2000}), ("source", {"train": 6000, "test": 9})):
        for split, count in counts.items():
            (tmp_path / name / split).mkdir(parents=True)
            for i in range(count):
                (tmp_path / name / split / f"{i}.png").touch()

    def advice(own_split: bool = True, **teacher: object) -> str | None:
        def change(settings: dict) -> None:
            for name in ("source", "target"):
                folders = {"train": "train", "test": "test"} if own_split else {}
                settings["domains"][name] = {"reader": "images", "path": str(tmp_path / name)} | folders
            settings["preprocess"]["test_fraction"] = 0.25
            settings["network"]["augment_dim"] = 9
            settings["teacher"] |= teacher

        return augmentation_advice(config.parse(params("folder", change), "folder"))

    said = advice()
    assert said is not None and "the target has about 4000 training images; set teacher.augment" in said
    assert "source" not in said
    assert advice(augment=0.15) is None
    # 64,000 images: a short training.
    assert advice(steps=4000, batch=16) is None
    # Without a split of its own a quarter of all is held out: 4,500 and 4,507 are left.
    whole = advice(own_split=False)
    assert whole is not None and "the target has about 4500" in whole and "the source has about 4507" in whole
    assert "the source has about 4507 training images; set distill.flip" in (advice(own_split=False, augment=0.1) or "")
