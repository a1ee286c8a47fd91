"""What a served model knows of its inputs, and the number of its threads."""

import logging
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rdmd.data.likeness import FEWEST, SourceStatistics, numbers_of
from rdmd.serving.images import translate_images
from rdmd.serving.model import Model
from rdmd.serving.threads import set_threads
from rdmd.serving.watch import Watch


def smooth(seed: int, n: int) -> np.ndarray:
    """Images of a random colour that fades to the right: uint8 (n, 12, 12, 3)."""
    rng = np.random.default_rng(seed)
    colour, fade = rng.uniform(80, 240, (n, 1, 1, 3)), np.linspace(1, 0.5, 12).reshape(1, 1, 12, 1)
    return np.broadcast_to(colour * fade + rng.normal(0, 2, (n, 12, 12, 1)), (n, 12, 12, 3)).clip(0, 255).astype("u1")


def as_networks_see(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2) / 127.5 - 1


def test_the_numbers_of_an_image_are_those_by_hand():
    image = np.zeros((1, 3, 4, 4))
    image[0, 0, :2, :2], image[0, 1, :, ::2] = 1, 1
    numbers = numbers_of(image)[0].reshape(6, 3)
    np.testing.assert_array_equal(numbers[:4].T, [[1, 0, 0, 0], [0.5] * 4, [0] * 4])
    # A quarter of ones; every second column of ones; nothing.
    np.testing.assert_allclose(np.exp(numbers[4]) - 0.01, [np.sqrt(3 / 16), 0.5, 0], atol=1e-12)
    # 2 of 12 neighbours differ, down and to the right; all of those to the right.
    np.testing.assert_allclose(np.exp(numbers[5]) - 0.01, [4 / 12, 1, 0], atol=1e-12)


def test_images_of_the_source_are_like_it_and_others_are_not():
    source = SourceStatistics.of(smooth(0, 400))
    assert source is not None
    assert (source.distances(as_networks_see(smooth(1, 200))) < 1).all()
    rng = np.random.default_rng(0)
    others = {
        "noise": rng.uniform(-1, 1, (5, 3, 12, 12)),
        "black": -np.ones((5, 3, 12, 12)),
        "turned": as_networks_see(smooth(2, 5)).transpose(0, 1, 3, 2),
        "negative": -as_networks_see(smooth(2, 5)),
    }
    for name, images in others.items():
        assert (source.distances(images) > 1).all(), name


def test_floats_and_integers_of_the_same_images_have_the_same_statistics():
    images = smooth(0, 50)
    one, other = SourceStatistics.of(images), SourceStatistics.of(images / 127.5 - 1)
    assert one is not None and other is not None
    # Float64 sums in another order.
    np.testing.assert_allclose(one.limit, other.limit, rtol=1e-9)
    assert SourceStatistics.model_validate_json(one.model_dump_json()) == one


def test_points_and_a_few_images_have_no_statistics():
    assert SourceStatistics.of(np.zeros((100, 2))) is None
    assert SourceStatistics.of(smooth(0, FEWEST - 1)) is None


def test_a_batch_with_images_unlike_the_source_is_a_warning_with_numbers(caplog: pytest.LogCaptureFixture):
    source = SourceStatistics.of(smooth(0, 400))
    assert source is not None
    seen = Watch(source)
    like = torch.from_numpy(as_networks_see(smooth(1, 3))).float()
    with caplog.at_level(logging.INFO, "rdmd.serving"):
        seen(like, 0.5 * like, 0.1)
        other = torch.cat([like[:1], torch.rand(2, 3, 12, 12)])
        seen(other, other, 0.1)
    assert (seen.inputs, seen.unlike) == (6, 2)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.records[1].getMessage().startswith("2 of 3 images are unlike")
    costs = 0.25 * like.square().mean((1, 2, 3))
    # Float32 sums in another order.
    np.testing.assert_allclose(caplog.records[0].__dict__["costs"], costs, rtol=1e-5)


def test_an_image_in_tiles_is_judged_once_and_as_a_whole(caplog: pytest.LogCaptureFixture):
    class Half(nn.Module):
        def forward(self, x: Tensor, lam: float | None = None, z: Tensor | None = None) -> Tensor:
            return 0.5 * x

    source = SourceStatistics.of(smooth(0, 400))
    assert source is not None
    model = Model(Half(), (3, 12, 12), "crop", torch.device("cpu"), watch=Watch(source))
    # 72 times the area of a training image: the right half of an image, mirrored again and again, after its left half.
    left, right = np.split(smooth(1, 1)[0], 2, axis=1)
    wide = np.concatenate([half[:, ::step] for half in (left, right) for step in [1, -1] * 36], axis=1)
    with caplog.at_level(logging.INFO, "rdmd.serving"):
        (translated,) = translate_images(model, [wide])
    assert translated.shape == wide.shape
    assert model.watch is not None and model.watch.inputs == 1
    (record,) = caplog.records
    np.testing.assert_allclose(record.__dict__["distances"], source.distances(as_networks_see(wide[None])), rtol=1e-5)
    np.testing.assert_allclose(record.__dict__["costs"], 0.25 * np.square(wide / 127.5 - 1).mean(), rtol=1e-5)


class Timed(nn.Module):
    """Takes the seconds that `seconds` gives for the present number of threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor, lam: float | None = None) -> Tensor:
        time.sleep(self.seconds[torch.get_num_threads()])
        return x


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 0.002, 2: 0.01, 3: 0.02}, 1),
        ({1: 0.02, 2: 0.004, 3: 0.02}, 2),
        ({1: 0.04, 2: 0.02, 3: 0.004}, 3),
        # 2 is not enough better.
        ({1: 0.0200, 2: 0.0195, 3: 0.03}, 1),
    ],
)
def test_the_threads_are_the_fastest_by_measurement(
    seconds: dict[int, float], chosen: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        model = Model(Timed(seconds), (3, 4, 4), "crop", torch.device("cpu"))
        assert set_threads(model) == torch.get_num_threads() == chosen
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert set_threads(model) == 3
    finally:
        torch.set_num_threads(before)
