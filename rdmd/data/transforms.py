"""From a decoded image to the experiment's size and colour, and between stored bytes and the range of networks."""

import colorsys
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from rdmd.data.splits import fraction

if TYPE_CHECKING:
    import torch


def to_unit(pixels: "torch.Tensor") -> "torch.Tensor":
    """uint8 in 0..255, any shape, to float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.float() / 127.5 - 1


def to_uint8(unit: "torch.Tensor") -> "torch.Tensor":
    """Floats in [-1, 1] to uint8 in 0..255: round(127.5 x + 127.5), clamped. The inverse of `to_unit`.

    Raises `FloatingPointError` if a value is not finite, which would otherwise become a plausible pixel.
    """
    if not unit.isfinite().all():
        raise FloatingPointError("an image holds a value that is not finite")
    return quantise(unit)


def quantise(unit: "torch.Tensor") -> "torch.Tensor":
    """`to_uint8` without the check, because exporters cannot trace a branch on values."""
    return (unit.float() * 127.5 + 127.5).round().clamp(0, 255).byte()


def fit(image: np.ndarray, resolution: int, how: Literal["crop", "pad"]) -> np.ndarray:
    """Make a uint8 (H, W, 3) image square: uint8 (resolution, resolution, 3).

    `crop` keeps the central square; `pad` keeps everything and fills the rest with white, the background of
    transparent images too. Lanczos resizing covers the whole support, so shrinking does not alias. An image of the
    right size is returned unchanged.
    """
    height, width = image.shape[:2]
    if (height, width) == (resolution, resolution):
        return image
    original = Image.fromarray(np.ascontiguousarray(image))
    if how == "crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        # Not `resize(box=)`: there the filter reaches past the box, and the cut-off margins bleed in.
        square = original.crop((left, top, left + side, top + side))
        return np.asarray(square.resize((resolution, resolution), Image.Resampling.LANCZOS))
    scale = resolution / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (resolution, resolution), "white")
    place = ((resolution - size[0]) // 2, (resolution - size[1]) // 2)
    canvas.paste(original.resize(size, Image.Resampling.LANCZOS), place)
    return np.asarray(canvas)


def random_crops(image: np.ndarray, resolution: int, copies: int, u: float) -> list[np.ndarray]:
    """Squares of an image, uint8 (H, W, 3), whose shorter side becomes `resolution`: at most `copies`, at different
    places, uint8 (resolution, resolution, 3).

    They lie at (u + i / copies) mod 1 of the way along the longer side, `u` in [0, 1): spread evenly, and each alone
    uniform over u.
    """
    height, width = image.shape[:2]
    scale = resolution / min(height, width)
    size = (round(width * scale), round(height * scale))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    places = max(size) - resolution + 1
    starts = sorted({math.floor(((u + i / copies) % 1.0) * places) for i in range(copies)})
    if width > height:
        return [resized[:, start : start + resolution] for start in starts]
    return [resized[start : start + resolution] for start in starts]


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
