"""Translate whole images of any size and shape: every result has the size of its image.

The generator is convolutional, so it takes other sizes than that of its training. An image goes through it at the scale
of training, and the result is enlarged to the size of the image.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from rdmd.data.readers.images import Picture, eight_bit, to_pil
from rdmd.data.transforms import bits_of, fit, resized, to_pixels, to_unit
from rdmd.distillation.generator import own_noise
from rdmd.serving.model import BATCH, Model

# Of the images that are translated together, which are in memory at once.
GROUP_PIXELS = 50_000_000
# An image of more than so many times the area of a training image is translated in tiles.
MOST_AREAS = 16
# Of a tile, in sides of a training image; a quarter of it overlaps its neighbour.
TILE_SIDES = 3
# A mirrored margin around an image of another size than a training image is this part of a training image's side. At
# its border a network sees zeros, which it knows from squares of one size alone: it would draw a faint frame.
MARGIN = 1 / 4


@dataclass(frozen=True)
class Sizing:
    """How an image reaches the generator.

    resolution: of the shorter side (of the longer side, for a model whose training images were padded); None is that
        of the training. At another resolution content has another size than in training.
    keep_detail: add the detail of the image that this resolution cannot hold to the result.
    """

    resolution: int | None = None
    keep_detail: bool = False


AS_TRAINED = Sizing()


@dataclass
class _Group:
    """Images that are translated together, reduced for the generator."""

    images: list[np.ndarray] = field(default_factory=list)
    reduced: list[np.ndarray] = field(default_factory=list)

    def is_full(self) -> bool:
        return len(self.images) >= BATCH or sum(image.shape[0] * image.shape[1] for image in self.images) > GROUP_PIXELS


def translate_images(model: Model, images: Iterable[np.ndarray], sizing: Sizing = AS_TRAINED) -> Iterator[np.ndarray]:
    """Translate images (H, W, C) of any sizes, of the model's channels and of 8 or 16 bits: for each, in order, one of
    its own size and bits.

    Few images are in memory at once, so `images` may be any number and read while they are translated. An image of the
    generator's resolution is neither resized nor cut.
    """
    group = _Group()
    for image in images:
        group.images.append(image)
        group.reduced.append(_reduced(image, model, sizing))
        if group.is_full():
            yield from _translate(model, group, sizing)
            group = _Group()
    yield from _translate(model, group, sizing)


def translate_pictures(model: Model, pictures: Iterable[Picture], sizing: Sizing = AS_TRAINED) -> Iterator[Image.Image]:
    """As `translate_images`, for pictures of `model.form`: PIL images, with the transparency of their pictures, which
    leaves grey 8 bits."""
    alphas: deque[Image.Image | None] = deque()

    def pixels() -> Iterator[np.ndarray]:
        for picture in pictures:
            alphas.append(picture.alpha)
            yield picture.pixels

    for translated in translate_images(model, pixels(), sizing):
        image, alpha = to_pil(translated, model.white), alphas.popleft()
        if alpha is not None:
            image = eight_bit(image)
            image.putalpha(alpha)
        yield image


def _translate(model: Model, group: _Group, sizing: Sizing) -> Iterator[np.ndarray]:
    translated = _at_scale(model, group.reduced)
    for image, small, result in zip(group.images, group.reduced, translated, strict=True):
        full = _enlarged(result, image, model)
        if sizing.keep_detail:
            detail = image.astype(np.int32) - _enlarged(small, image, model)
            full = (full + detail).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
        yield full


def _reduced(image: np.ndarray, model: Model, sizing: Sizing) -> np.ndarray:
    """The image at the scale of training, with its own shape; padded to a square where training images were."""
    side = sizing.resolution or model.sample_shape[-1]
    if model.fit == "pad":
        return fit(image, side, "pad")
    height, width = image.shape[:2]
    scale = side / min(height, width)
    return resized(image, max(side, round(height * scale)), max(side, round(width * scale)))


def _enlarged(result: np.ndarray, image: np.ndarray, model: Model) -> np.ndarray:
    """A result at the scale of training in the size of its image, without what `_reduced` padded."""
    height, width = image.shape[:2]
    if model.fit == "pad":
        scale = len(result) / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (len(result) - rows) // 2, (len(result) - columns) // 2
        result = result[top : top + rows, left : left + columns]
    return resized(result, height, width)


@torch.no_grad()
def _at_scale(model: Model, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Translate images at the scale of training; images of one shape and type share a batch."""
    results: list[np.ndarray] = [np.empty(0)] * len(images)
    for shape, dtype in dict.fromkeys((image.shape, image.dtype) for image in images):
        places = [i for i, image in enumerate(images) if (image.shape, image.dtype) == (shape, dtype)]
        x = torch.from_numpy(np.stack([images[i] for i in places])).permute(0, 3, 1, 2)
        together = max(1, BATCH * model.sample_shape[-1] ** 2 // (shape[0] * shape[1]))
        for part, batch in zip(x.split(together), torch.tensor(places).split(together), strict=True):
            unit = to_unit(part.to(model.device))
            translated = _padded(model, unit)
            if model.watch is not None:
                model.watch(unit, translated, model.lam)
            translated = to_pixels(translated, bits_of(part)).cpu()
            for i, result in zip(batch.tolist(), translated.permute(0, 2, 3, 1).numpy(), strict=True):
                results[i] = result
    return results


def _padded(model: Model, x: Tensor) -> Tensor:
    """Translate (B, C, H, W) in [-1, 1] of any size: mirrored to sides that the U-Net can halve, and cut back."""
    height, width = x.shape[2:]
    side = model.sample_shape[-1]
    margin = 0 if (height, width) == (side, side) else round(MARGIN * side)
    right, below = (margin + -(length + 2 * margin) % model.multiple for length in (width, height))
    # A mirror image needs more pixels than it adds.
    mode = "reflect" if right < width and below < height else "replicate"
    padded = pad(x, (margin, right, margin, below), mode=mode) if right or below else x
    translate = _tiled if padded.shape[2] * padded.shape[3] > MOST_AREAS * model.sample_shape[-1] ** 2 else _whole
    return translate(model, padded)[..., margin : margin + height, margin : margin + width]


def _whole(model: Model, x: Tensor) -> Tensor:
    return model.generator(x, model.lam)


def _tiled(model: Model, x: Tensor) -> Tensor:
    """Translate in overlapping tiles, which fade into each other: memory does not grow with the image.

    Each tile is translated for itself, so attention and normalisation see the tile alone.
    """
    tile = TILE_SIDES * model.sample_shape[-1]
    rows, columns = (_spans(side, tile, model.multiple) for side in x.shape[2:])
    z, factor = own_noise(x, model.codec), 1 if model.codec is None else model.codec.factor
    total, weight = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
    for top, bottom in rows:
        for left, right in columns:
            place = (..., slice(top, bottom), slice(left, right))
            fade = torch.outer(_fade(bottom - top, tile // 4), _fade(right - left, tile // 4)).to(x)
            of_tile = z[..., top // factor : bottom // factor, left // factor : right // factor]
            total[place] += fade * model.generator(x[place], model.lam, of_tile)
            weight[place] += fade
    return total / weight


def _spans(side: int, tile: int, multiple: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along a side that is a multiple of `multiple`, evenly spaced, a quarter overlapping."""
    tile = min(side, -(-tile // multiple) * multiple)
    count = 1 + -(-(side - tile) // (tile - tile // 4))
    starts = [round(i * (side - tile) / max(1, count - 1) / multiple) * multiple for i in range(count)]
    assert all(after - before < tile for before, after in pairwise(starts)), "tiles leave a gap"
    return [(start, start + tile) for start in starts]


def _fade(length: int, overlap: int) -> Tensor:
    """Weights along a tile, (length,) in (0, 1]: they rise over the overlap at both ends."""
    place = torch.arange(length) + 0.5
    return (torch.minimum(place, length - place) / overlap).clamp(max=1)
