"""The reader `images`: a folder of image files of any nesting."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rdmd.config import ImageFolder
from rdmd.data.samples import LFS_POINTER, Broken, Reading, Sample, Split, printable
from rdmd.data.transforms import bits_of, grey_if_equal, with_bits, with_channels
from rdmd.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"})
MIN_SIDE = 8
# Of the longer side over the shorter one. A strip of few pixels would grow to gigabytes when its shorter side is
# enlarged to the resolution of a network.
MAX_ASPECT = 100


class UnreadableError(Exception):
    """A file that holds no usable image; the text is the reason, a few words long."""


@dataclass(frozen=True)
class Form:
    """The form in which images are read: `channels` and `white` of the section `preprocess`."""

    channels: Literal[1, 3, "auto"] = 3
    white: int | None = None


RGB = Form()
# Values of 16 bits that end below this are of a camera of 12 bits, unless `white` says otherwise.
_TWELVE_BITS = 4096


@dataclass(frozen=True, eq=False)
class Picture:
    """An image: `pixels` (H, W, 3) uint8, or grey (H, W, 1), uint8 or uint16; and its transparency (mode L) if it has
    any."""

    pixels: np.ndarray
    alpha: Image.Image | None


def chosen(
    names: Iterable[str], domain: ImageFolder, key: str
) -> tuple[list[tuple[str, Split | None]], dict[str, int]]:
    """The images among `names` (relative paths, forward slashes), each with the split that its folder gives it; and
    how many other files there are, by suffix. Hidden files and folders do not count.

    If the domain names `train` and `test` folders, only files below them count. `key` (such as `domains.source`)
    stands for the domain in messages. Raises `UserError` if no image is left.
    """
    visible = [name for name in names if not _hidden(name)]
    folders: dict[Split, PurePosixPath] = {}
    if domain.train is not None and domain.test is not None:
        folders = {"train": PurePosixPath(domain.train), "test": PurePosixPath(domain.test)}
        if folders["train"].is_relative_to(folders["test"]) or folders["test"].is_relative_to(folders["train"]):
            raise UserError(
                f"{key}.train and {key}.test are `{domain.train}` and `{domain.test}`, one inside the other; "
                "name two separate folders."
            )
    found: list[tuple[str, Split | None]] = []
    others: Counter[str] = Counter()
    for name in visible:
        path = PurePosixPath(name)
        splits = [split for split, folder in folders.items() if path.is_relative_to(folder)]
        if folders and not splits:
            continue
        if path.suffix.lower() in SUFFIXES:
            found.append((name, splits[0] if splits else None))
        else:
            others[path.suffix[1:].upper() or "no suffix"] += 1
    for split, folder in folders.items():
        if all(named != split for _, named in found):
            present = sorted({PurePosixPath(name).parts[0] for name in visible if "/" in name})
            raise UserError(
                f"{domain.path} holds no images below `{folder}`, which {key}.{split} names (its folders: "
                f"{', '.join(present[:5]) or 'none'}); correct the key or the folder."
            )
    if not found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        instead = f" but {kinds}, which are not read" if others else ""
        raise UserError(
            f"{domain.path} holds no images ({', '.join(sorted(suffix[1:] for suffix in SUFFIXES))}){instead}; "
            f"put some there or change {key}.path."
        )
    return found, dict(sorted(others.items()))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def decode(file: BinaryIO, max_pixels: int | None = None, form: Form = RGB) -> np.ndarray:
    """The pixels of `read_picture`."""
    return read_picture(file, max_pixels, form).pixels


def read_picture(file: BinaryIO, max_pixels: int | None = None, form: Form = RGB) -> Picture:
    """Decode an image file, upright.

    The EXIF orientation is applied, transparency is laid on white, an animation gives its first frame, and CMYK and
    palettes become RGB, of 8 bits. Colour profiles are ignored. Of three channels grey is repeated, and its 16 bits
    become 8 (65535 is 255); of one, colours become grey of 8 bits, and 16 bits stay; `auto` gives three, or one if they
    are equal.

    Raises `UnreadableError` if the file is no image or damaged, has more than `max_pixels` (default: Pillow's limit),
    has a side under 8 pixels or over 100 times the other, or holds numbers without a known white (32-bit integers,
    floats, and without `form.white` 16 bits of which 12 or fewer are used).
    """
    with warnings.catch_warnings():
        # Pillow only warns about images of up to twice its limit; the check below refuses them.
        warnings.simplefilter("ignore")
        try:
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                most = max_pixels or Image.MAX_IMAGE_PIXELS
                if min(width, height) < MIN_SIDE:
                    raise UnreadableError(f"{width}x{height} pixels; a side needs at least {MIN_SIDE}")
                if max(width, height) > MAX_ASPECT * min(width, height):
                    raise UnreadableError(f"{width}x{height}; a side is more than {MAX_ASPECT} times the other")
                if most is not None and width * height > most:
                    raise UnreadableError(f"{width}x{height} is more than {most} pixels")
                return picture_of(image, form)
        except UnreadableError:
            raise
        except UnidentifiedImageError:
            # Pillow's own text holds a memory address, and the manifest must be the same on every run.
            file.seek(0)
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
            reason = "a Git LFS pointer; run `git lfs pull`" if pointer else "not an image in a known format"
            raise UnreadableError(reason) from None
        except Image.DecompressionBombError:
            raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
        except Exception as error:
            # A damaged file makes Pillow's decoders raise nearly anything.
            raise UnreadableError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from None


def picture_of(image: Image.Image, form: Form = RGB) -> Picture:
    """A PIL image as `read_picture` gives it. Raises `UnreadableError` if it holds numbers without a known white."""
    # Older Pillow opens 16-bit PNG as "I"; any other 32-bit file has no known white.
    sixteen_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    upright = ImageOps.exif_transpose(image)
    if sixteen_bit:
        return _sixteen_bit(np.asarray(upright), upright.info.get("transparency"), form)
    if upright.mode in ("I", "F"):
        raise UnreadableError("32-bit pixels have no known white; save it with 8 or 16 bits")
    alpha = None
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        alpha = layer.getchannel("A")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    if form.channels == 1:
        return Picture(np.asarray(upright.convert("RGB").convert("L"))[..., None], alpha)
    colours = np.asarray(upright.convert("RGB"))
    return Picture(grey_if_equal(colours) if form.channels == "auto" else colours, alpha)


def _sixteen_bit(values: np.ndarray, transparent: int | None, form: Form) -> Picture:
    if form.white is not None:
        grey = np.rint(values.clip(max=form.white) * (65535 / form.white)).astype(np.uint16)
    elif 0 < values.max() < _TWELVE_BITS:
        raise UnreadableError(
            f"16 bits whose values end at {values.max()}, as of 8 or 12 bits in a larger file, would come out black; "
            "set preprocess.white to the value that is white, such as 255 or 4095, or scale them to 65535"
        )
    else:
        grey = values.astype(np.uint16)
    alpha = None
    if transparent is not None:
        grey = np.where(values == transparent, np.uint16(65535), grey)
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Picture(with_channels(with_bits(grey[..., None], 8), 3) if form.channels == 3 else grey[..., None], alpha)


def to_pil(pixels: np.ndarray, white: int | None = None) -> Image.Image:
    """Pixels as a PIL image, the inverse of `picture_of`: RGB (8 bits), L, or I;16, whose values end at `white`."""
    if pixels.shape[2] == 3:
        return Image.fromarray(np.ascontiguousarray(with_bits(pixels, 8)))
    grey = pixels[..., 0]
    if bits_of(grey) == 16 and white is not None:
        grey = np.rint(grey * (white / 65535)).astype(np.uint16)
    return Image.fromarray(np.ascontiguousarray(grey))


def eight_bit(image: Image.Image) -> Image.Image:
    """A PIL image of mode I;16 as L, any other as it is."""
    return Image.fromarray(with_bits(np.asarray(image), 8)) if image.mode == "I;16" else image


def read(domain: ImageFolder, key: str, form: Form = RGB) -> Reading:
    """Open the folder `domain.path`: its images in the order of their relative paths, on every file system.

    Links to folders are followed, each folder once; hidden files and folders are skipped. `key` (such as
    `domains.source`) stands for the domain in messages. Raises `UserError` if there is no folder or no image.
    """
    root = domain.path
    if root.is_file():
        raise UserError(f"{root} is a file; set {key}.reader to `archive` if it is a zip or tar, or give a folder.")
    if not root.is_dir():
        raise UserError(f"{root} does not exist; put a folder of images there or change {key}.path.")
    listed, others = chosen(sorted(_walk(root)), domain, key)
    return Reading(len(listed), (_read_one(root, name, split, form) for name, split in listed), others)


def _walk(root: Path) -> Iterator[str]:
    """Every file below `root`, relative, with forward slashes; an unreadable folder raises."""

    def refuse(error: OSError) -> None:
        raise error

    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=refuse):
        # A link to a parent folder would otherwise never end.
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        relative = Path(folder).relative_to(root)
        yield from ((relative / file).as_posix() for file in files)


def _read_one(root: Path, name: str, split: Split | None, form: Form) -> Sample | Broken:
    shown = printable(name)
    path = root / name
    # Opening a pipe that happens to be called x.png would wait for ever.
    if path.exists() and not path.is_file():
        return Broken(shown, "not a regular file")
    try:
        with path.open("rb") as file:
            return Sample(shown, decode(file, form=form), split=split)
    except UnreadableError as error:
        return Broken(shown, str(error))
    except OSError as error:
        return Broken(shown, error.strerror or "cannot be read")
