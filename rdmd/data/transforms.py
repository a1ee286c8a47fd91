"""From a decoded image to the experiment's size and colour, and between stored bytes and the range of networks."""

import colorsys
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from rdmd.data.splits import fraction

if TYPE_CHECKING:
    import torch


Bits = Literal[8, 16]


def bits_of(pixels: "torch.Tensor | np.ndarray") -> Bits:
    """Of a pixel of uint8 or uint16."""
    return 8 if pixels.itemsize == 1 else 16


def to_unit(pixels: "torch.Tensor") -> "torch.Tensor":
    """uint8 in 0..255 or uint16 in 0..65535, any shape, to float32 in [-1, 1]: x / 127.5 - 1 or x / 32767.5 - 1."""
    return pixels.float() / ((2 ** bits_of(pixels) - 1) / 2) - 1


def to_pixels(unit: "torch.Tensor", bits: Bits) -> "torch.Tensor":
    """Floats in [-1, 1] to uint8 in 0..255, round(127.5 x + 127.5), or to uint16 in 0..65535, clamped. The inverse of
    `to_unit`.

    Raises `FloatingPointError` if a value is not finite, which would otherwise become a plausible pixel.
    """
    if not unit.isfinite().all():
        raise FloatingPointError("an image holds a value that is not finite")
    return quantise(unit, bits)


def to_uint8(unit: "torch.Tensor") -> "torch.Tensor":
    """`to_pixels` of 8 bits."""
    return to_pixels(unit, 8)


def quantise(unit: "torch.Tensor", bits: Bits = 8) -> "torch.Tensor":
    """`to_pixels` without the check, because exporters cannot trace a branch on values."""
    white = 2**bits - 1
    levels = (unit.float() * (white / 2) + white / 2).round().clamp(0, white)
    if bits == 8:
        return levels.byte()
    import torch

    return levels.to(torch.uint16)


def as_rgb(images: "torch.Tensor") -> "torch.Tensor":
    """Images (N, C, H, W) of 8 or 16 bits as RGB of 8 bits, to be looked at: uint8 (N, 3, H, W)."""
    return (images if bits_of(images) == 8 else to_uint8(to_unit(images))).expand(-1, 3, -1, -1)


def with_bits(image: np.ndarray, bits: Bits) -> np.ndarray:
    """Pixels with so many bits: 255 and 65535 are the same white."""
    if bits_of(image) == bits:
        return image
    return image.astype(np.uint16) * np.uint16(257) if bits == 16 else np.rint(image / 257).astype(np.uint8)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """An image (H, W, C) with 1 or 3 channels: a colour becomes its luma (ITU-R BT.601), and grey is repeated."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.rint(image @ np.array([[0.299], [0.587], [0.114]])).astype(image.dtype)


def grey_if_equal(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) with one channel where all are equal, else as it is."""
    return image[..., :1] if (image == image[..., :1]).all() else image


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, C) of 8 or 16 bits in another size. Lanczos resizing covers the whole support, so shrinking does
    not alias. An image of the right size is returned unchanged."""
    if image.shape[:2] == (height, width):
        return image
    size, filter_ = (width, height), Image.Resampling.LANCZOS
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, filter_))
    # Pillow has no RGB of 16 bits.
    planes = (Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(image, 2, 0))
    values = np.stack([np.asarray(plane.resize(size, filter_)) for plane in planes], axis=2)
    return values.round().clip(0, np.iinfo(image.dtype).max).astype(image.dtype)


def fit(image: np.ndarray, resolution: int, how: Literal["crop", "pad"]) -> np.ndarray:
    """Make an image (H, W, C) of 8 or 16 bits square: (resolution, resolution, C).

    `crop` keeps the central square; `pad` keeps everything and fills the rest with white, the background of
    transparent images too. An image of the right size is returned unchanged.
    """
    height, width, channels = image.shape
    if height == width == resolution:
        return image
    if how == "crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        # Not Pillow's `resize(box=)`: there the filter reaches past the box, and the cut-off margins bleed in.
        return resized(image[top : top + side, left : left + side], resolution, resolution)
    scale = resolution / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = np.full((resolution, resolution, channels), np.iinfo(image.dtype).max, image.dtype)
    top, left = (resolution - rows) // 2, (resolution - columns) // 2
    canvas[top : top + rows, left : left + columns] = resized(image, rows, columns)
    return canvas


def random_crops(image: np.ndarray, resolution: int, copies: int, u: float) -> list[np.ndarray]:
    """Squares of an image (H, W, C) of 8 or 16 bits, whose shorter side becomes `resolution`: at most `copies`, at
    different places, (resolution, resolution, C).

    They lie at (u + i / copies) mod 1 of the way along the longer side, `u` in [0, 1): spread evenly, and each alone
    uniform over u.
    """
    height, width = image.shape[:2]
    scale = resolution / min(height, width)
    reduced = resized(image, round(height * scale), round(width * scale))
    places = max(reduced.shape) - resolution + 1
    starts = sorted({math.floor(((u + i / copies) % 1.0) * places) for i in range(copies)})
    if width > height:
        return [reduced[:, start : start + resolution] for start in starts]
    return [reduced[start : start + resolution] for start in starts]


def colour(image: np.ndarray, hue: float) -> np.ndarray:
    """Tint a grey image: grey v in [0, 1] times the RGB of the fully saturated `hue` in [0, 1).

    uint8 (H, W, 3) with equal channels to uint8 (H, W, 3); black stays black and white becomes the colour.
    """
    tint = np.array(colorsys.hsv_to_rgb(hue, 1.0, 1.0))
    return np.rint(image[..., :1] * tint).astype(np.uint8)


def hues(seed: int, digest: str, copies: int) -> list[float]:
    """The hues of one scan's copies, stratified: (u + i / copies) mod 1, with u a hash of (seed, content).

    They are spread evenly over the circle, so no two copies coincide, and each alone is uniform over scans.
    """
    u = fraction(seed, "hue", digest)
    return [(u + i / copies) % 1.0 for i in range(copies)]
