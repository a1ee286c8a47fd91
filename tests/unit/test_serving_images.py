"""Whole images through a generator: sizes, scales, tiles and detail."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from rdmd.config import ImageNetwork
from rdmd.distillation.generator import Generator
from rdmd.networks.build import build_denoiser
from rdmd.serving import images as whole_images
from rdmd.serving.images import Sizing, translate_images
from rdmd.serving.model import Model

CPU = torch.device("cpu")
R = 16


class Local(nn.Module):
    """A local map: the mean of 3x3 pixels, mirrored in value."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, lam: object = None, z: object = None) -> Tensor:
        self.seen.append(tuple(x.shape))
        return -avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class Same(Local):
    def forward(self, x: Tensor, lam: object = None, z: object = None) -> Tensor:
        self.seen.append(tuple(x.shape))
        return x


def model(generator: nn.Module, fit: str = "crop") -> Model:
    return Model(generator, (3, R, R), fit, CPU)  # type: ignore[arg-type]


def smooth(height: int, width: int) -> np.ndarray:
    """A colour gradient with a wave, uint8 (height, width, 3): no detail is lost by a modest reduction."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (x + y))
    return np.rint(255 * np.stack([x, y, wave], axis=2)).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(37, 21), (480, 640), (8, 90), (R, R)])
def test_a_result_has_the_size_and_the_content_of_its_image(size: tuple[int, int], fit: str) -> None:
    image = smooth(*size)
    (result,) = translate_images(model(Same(), fit), [image])
    assert result.shape == image.shape and result.dtype == np.uint8
    # A reduction to 16 pixels and back blurs a wave; to the one pixel of a padded 8x90's short side, it averages it.
    across = 0 if (size, fit) == ((8, 90), "pad") else ()
    difference = (result.astype(int) - image.astype(int)).mean(axis=across)
    assert np.abs(difference).mean() < 10


def test_images_of_the_training_resolution_pass_unchanged_and_share_a_batch() -> None:
    generator = Same()
    given = [noise(R, R), noise(40, R), noise(R, R)]
    results = list(translate_images(model(generator), given))
    assert all(np.array_equal(a, b) for a, b in zip(results, given, strict=True)), "nothing is resized at side R"
    assert generator.seen == [(2, 3, R, R), (1, 3, 40 + R // 2, R + R // 2)]


def test_the_shorter_side_reaches_the_generator_at_the_resolution_asked_for() -> None:
    generator = Same()
    list(translate_images(model(generator), [noise(100, 50)], Sizing(resolution=24)))
    assert generator.seen == [(1, 3, 48 + R // 2, 24 + R // 2)]


def test_detail_that_the_resolution_cannot_hold_comes_back() -> None:
    image = noise(64, 48)
    (kept,) = translate_images(model(Same()), [image], Sizing(keep_detail=True))
    assert np.array_equal(kept, image), "a generator that changes nothing changes no detail"
    (lost,) = translate_images(model(Same()), [image])
    assert np.abs(lost.astype(int) - image.astype(int)).mean() > 20


def test_zeros_beyond_the_border_leave_no_frame_in_an_image_of_another_size() -> None:
    class ZeroPadded(nn.Module):
        def forward(self, x: Tensor, lam: object = None, z: object = None) -> Tensor:
            return avg_pool2d(x, 3, 1, 1)

    for size in ((R, 40), (300, 200)):
        (result,) = translate_images(model(ZeroPadded()), [np.full((*size, 3), 255, np.uint8)])
        assert (result == 255).all()


def test_tiles_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local map in tiles against the same in one piece."""
    image = noise(R * 5, R * 9)
    sizing = Sizing(resolution=R * 5)
    (tiled,) = translate_images(model(tile_by_tile := Local()), [image], sizing)
    assert max(shape[2] * shape[3] for shape in tile_by_tile.seen) <= (whole_images.TILE_SIDES * R) ** 2
    monkeypatch.setattr(whole_images, "MOST_AREAS", 1000)
    (whole,) = translate_images(model(Local()), [image], sizing)
    # Averages at the edge of a tile lack its neighbour's pixels, where the tile's weight is 1 / 24 or less.
    assert np.abs(tiled.astype(int) - whole.astype(int)).max() <= 4


def test_tiles_cover_every_side() -> None:
    for side in range(8, 400, 8):
        spans = whole_images._spans(side, 48, 8)
        assert spans[0][0] == 0 and spans[-1][1] == side
        assert all(after[0] < before[1] for before, after in pairwise(spans))


def test_a_photograph_is_translated_in_tiles_of_bounded_size() -> None:
    generator = Same()
    image = smooth(3000, 4000)
    (result,) = translate_images(model(generator), [image], Sizing(resolution=R * 8))
    assert result.shape == image.shape
    assert len(generator.seen) > 4 and max(shape[2] * shape[3] for shape in generator.seen) <= (3 * R) ** 2
    # The wave at 128 pixels and back, in tiles: an eighth of a level of the 255 is what resampling leaves.
    assert np.abs(result.astype(int) - image.astype(int)).mean() < 1


def test_a_u_net_takes_sides_that_it_cannot_halve() -> None:
    """At an odd size the mirrored border changes nothing but the border: the network is the one of the square."""
    network = ImageNetwork(
        kind="ddpmpp", model_channels=8, channel_mult=[1, 2, 2], num_blocks=1, attn_resolutions=[4], sigma_data=0.5
    )
    torch.manual_seed(0)
    generator = Generator(build_denoiser(network, (3, R, R)), 1.0).eval()
    unet = model(generator)
    assert unet.multiple == 4
    (odd,) = translate_images(unet, [noise(21, 37)], Sizing(resolution=21))
    assert odd.shape == (21, 37, 3)
    image = noise(R, R)
    (square,) = translate_images(unet, [image])
    with torch.no_grad():
        direct = generator(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1)[0]
    assert np.array_equal(square, (direct * 127.5 + 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def test_results_come_while_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images are in memory at once: of photographs of 12 megapixels, five. Here each side is a tenth."""
    monkeypatch.setattr(whole_images, "GROUP_PIXELS", whole_images.GROUP_PIXELS // 100)
    read = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield smooth(300, 400)

    next(translate_images(model(Same()), images()))
    assert read <= 5
