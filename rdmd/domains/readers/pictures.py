"""One picture file, whatever its format and mode, as RGB bytes."""

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MIN_SIDE = 8


class UnreadableError(Exception):
    """This file gives no usable picture; the text is the reason, a few words long."""


def decode(file: BinaryIO, max_pixels: int | None = None) -> np.ndarray:
    """The picture in `file`, uint8 (H, W, 3), upright.

    The EXIF orientation is applied, transparency is laid on white, the first frame of an animation is taken,
    CMYK, palettes and grey become RGB, and 16-bit grey is scaled by 1/257 (65535 becomes 255). Colour
    profiles are ignored.

    Raises `UnreadableError` if the file is no picture or damaged, has more than `max_pixels` (default: as
    many as Pillow deems safe), has a side under 8 pixels, or holds numbers without a known white (32-bit
    integers, floats).
    """
    with warnings.catch_warnings():
        # Pillow only warns about pictures of up to twice its limit; the check below refuses them by name.
        warnings.simplefilter("ignore")
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image, max_pixels or Image.MAX_IMAGE_PIXELS)
                return _to_rgb(image)
        except UnreadableError:
            raise
        except UnidentifiedImageError:
            # Its own text holds a memory address, and the manifest must be the same on every run.
            raise UnreadableError("not a picture in a known format") from None
        except Image.DecompressionBombError:
            raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
        except Exception as error:
            # A damaged file makes Pillow's decoders raise nearly anything.
            raise UnreadableError(
                getattr(error, "strerror", None) or str(error) or type(error).__name__
            ) from None


def _check_size(image: Image.Image, max_pixels: int | None) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise UnreadableError(f"{width}x{height} pixels; a side needs at least {MIN_SIDE}")
    if max_pixels is not None and width * height > max_pixels:
        raise UnreadableError(f"{width}x{height} is more than {max_pixels} pixels")


def _to_rgb(image: Image.Image) -> np.ndarray:
    # Older Pillow opens 16-bit PNG as "I"; any other 32-bit file has no known white.
    sixteen_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    upright = ImageOps.exif_transpose(image)
    if sixteen_bit:
        return _from_16_bit(np.asarray(upright), upright.info.get("transparency"))
    if upright.mode in ("I", "F"):
        raise UnreadableError("32-bit pixels have no known white; save it with 8 or 16 bits")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    return np.asarray(upright.convert("RGB"))


def _from_16_bit(values: np.ndarray, transparent: int | None) -> np.ndarray:
    """(H, W) in 0..65535 to uint8 (H, W, 3); pixels of the value `transparent` are laid on white."""
    grey = np.rint(values.astype(np.float64) / 257).astype(np.uint8)
    if transparent is not None:
        grey[values == transparent] = 255
    return np.repeat(grey[..., None], 3, axis=2)
