"""The reader `images`: a folder of image files of any nesting."""

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rdmd.config import ImageFolder
from rdmd.data.samples import Broken, Reading, Sample, Split, printable
from rdmd.errors import UserError


def is_picture(name: str) -> bool:
    """Whether a relative path (forward slashes) is a picture: known suffix in any case, nothing hidden."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


def chosen(names: Iterable[str], domain: ImageFolder, key: str) -> list[tuple[str, Split | None]]:
    """The pictures among `names` (relative, forward slashes), each with the split that its folder gives it.

    Where the domain names `train` and `test` folders, only what lies below them counts. `key` (such as
    `domains.source`) stands for the domain in messages. Raises `UserError` if nothing is left.
    """
    pictures = [name for name in names if is_picture(name)]
    if domain.train is None or domain.test is None:
        if not pictures:
            raise UserError(
                f"{domain.path} holds no pictures ({', '.join(sorted(s[1:] for s in SUFFIXES))}); put some "
                f"there or change {key}.path."
            )
        return [(name, None) for name in pictures]
    folders: dict[Split, PurePosixPath] = {
        "train": PurePosixPath(domain.train),
        "test": PurePosixPath(domain.test),
    }
    if folders["train"].is_relative_to(folders["test"]) or folders["test"].is_relative_to(folders["train"]):
        raise UserError(
            f"{key}.train and {key}.test are `{domain.train}` and `{domain.test}`, one inside the other; "
            "name two separate folders."
        )
    found: list[tuple[str, Split | None]] = [
        (name, split)
        for name in pictures
        for split, folder in folders.items()
        if PurePosixPath(name).is_relative_to(folder)
    ]
    for split, folder in folders.items():
        if not any(where == split for _, where in found):
            tops = sorted({PurePosixPath(name).parts[0] for name in pictures if "/" in name})
            seen = f"its folders with pictures are {', '.join(tops[:5])}" if tops else "it has no folders with pictures"
            raise UserError(
                f"{domain.path} holds no pictures below `{folder}`, which {key}.{split} names; "
                f"{seen}: correct the key or the folder."
            )
    return found


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
                return to_rgb(image)
        except UnreadableError:
            raise
        except UnidentifiedImageError:
            # Its own text holds a memory address, and the manifest must be the same on every run.
            raise UnreadableError("not a picture in a known format") from None
        except Image.DecompressionBombError:
            raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
        except Exception as error:
            # A damaged file makes Pillow's decoders raise nearly anything.
            raise UnreadableError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from None


def _check_size(image: Image.Image, max_pixels: int | None) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise UnreadableError(f"{width}x{height} pixels; a side needs at least {MIN_SIDE}")
    if max_pixels is not None and width * height > max_pixels:
        raise UnreadableError(f"{width}x{height} is more than {max_pixels} pixels")


def to_rgb(image: Image.Image) -> np.ndarray:
    """A PIL image as `decode` gives it. Raises `UnreadableError` if it holds numbers without a known white."""
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


def read(domain: ImageFolder, key: str) -> Reading:
    """Open the folder `domain.path`: its pictures in the order of their relative paths, on every file system.

    Linked folders are followed, each real folder once; hidden files and folders are skipped. `key` (such as
    `domains.source`) stands for the domain in messages. Raises `UserError` if there is no folder or no
    picture.
    """
    root = domain.path
    if root.is_file():
        raise UserError(f"{root} is a file; set {key}.reader to `archive` if it is a zip or tar, or give a folder.")
    if not root.is_dir():
        raise UserError(f"{root} does not exist; put a folder of pictures there or change {key}.path.")
    listed = chosen(sorted(_walk(root)), domain, key)
    return Reading(len(listed), (_read_one(root, name, split) for name, split in listed))


def _walk(root: Path) -> Iterator[str]:
    """Every file below `root`, relative, with forward slashes; an unreadable folder raises."""
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
        # A link back to a parent would otherwise never end.
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        relative = Path(folder).relative_to(root)
        yield from ((relative / file).as_posix() for file in files)


def _raise(error: OSError) -> None:
    raise error


def _read_one(root: Path, name: str, split: Split | None) -> Sample | Broken:
    shown = printable(name)
    path = root / name
    # Opening a pipe that happens to be called x.png would wait for ever.
    if path.exists() and not path.is_file():
        return Broken(shown, "not a regular file")
    try:
        with path.open("rb") as file:
            return Sample(shown, decode(file), split=split)
    except UnreadableError as error:
        return Broken(shown, str(error))
    except OSError as error:
        return Broken(shown, error.strerror or "cannot be read")
