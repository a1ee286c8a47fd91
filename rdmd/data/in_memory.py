"""Samples in memory: a folder of images as a dataset, and anything that holds samples as one tensor."""

import hashlib
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from rdmd import config
from rdmd.data.readers import archives
from rdmd.data.readers import images as folders
from rdmd.data.samples import Broken
from rdmd.data.transforms import bits_of, with_bits, with_channels
from rdmd.data.transforms import fit as made_square
from rdmd.errors import UserError

# What the functions of the library take as samples.
Samples = Tensor | np.ndarray | Sequence[Any] | Dataset[Any]


class ImageFolder(Dataset[Tensor]):
    """The images of a folder, with its subfolders, or of a zip or tar archive: decoded once, square, of one size.

    An item is uint8 (3, resolution, resolution); `images` holds all of them, (N, 3, resolution, resolution), in the
    order of their paths. `fit` says how an image becomes square: `crop` keeps its centre, `pad` adds white. With
    `channels=1` items are grey, of 8 or 16 bits; with "auto" if all images are. `white` is what is white in grey images
    of 16 bits. Files that cannot be decoded are left out with a warning. Raises UserError if `path` does not exist or
    holds no image.

    Examples:
        >>> import rdmd, tempfile
        >>> from PIL import Image
        >>> folder = tempfile.mkdtemp()
        >>> Image.new("RGB", (40, 30), "red").save(f"{folder}/red.png")
        >>> red = rdmd.ImageFolder(folder, resolution=16, progress=False)
        >>> len(red), red[0].shape, red[0].dtype
        (1, torch.Size([3, 16, 16]), torch.uint8)
    """

    def __init__(
        self,
        path: str | Path,
        resolution: int = 64,
        fit: Literal["crop", "pad"] = "crop",
        progress: bool = True,
        channels: Literal[1, 3, "auto"] = 3,
        white: int | None = None,
    ) -> None:
        self.fit, self.white = fit, white
        form = folders.Form(channels, white)
        archive = Path(path).is_file()
        domain = config.ImageFolder(reader="archive" if archive else "images", path=Path(path))
        read = partial(archives.read, form=form) if archive else partial(folders.read, form=form)
        reading = read(domain, "ImageFolder")
        arrays, broken = [], []
        for item in tqdm(reading.items, total=reading.total, desc=str(path), unit="image", disable=not progress):
            if isinstance(item, Broken):
                broken.append(item)
            else:
                arrays.append(made_square(item.array, resolution, fit))
        if not arrays:
            raise UserError(f"{path} holds no image that can be decoded ({broken[0].name}: {broken[0].reason}).")
        if broken:
            first = f"{broken[0].name}: {broken[0].reason}"
            warnings.warn(f"{len(broken)} of {reading.total} images in {path} are left out ({first})", stacklevel=2)
        self.images = torch.from_numpy(np.stack(alike(arrays))).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def stored(samples: Samples) -> Tensor:
    """Samples as training stores them: images (N, H, W, C), uint8, uint16 or float32 in [-1, 1], or points (N, d).

    `samples` is a tensor or an array of images (N, 3, H, W) or (N, H, W, 3), with one channel or three, or of points
    (N, d); or a sequence or a dataset of such samples or of PIL images, which is read into memory; of a tuple, such as
    (image, label), the first entry is taken. Raises UserError if they are anything else.
    """
    if isinstance(samples, ImageFolder):
        return samples.images.permute(0, 2, 3, 1)
    tensor = torch.as_tensor(samples) if isinstance(samples, Tensor | np.ndarray) else _stacked(samples)
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
        if not tensor.isfinite().all():
            raise UserError("a sample holds a value that is not finite; remove it.")
    elif tensor.dtype not in (torch.uint8, torch.uint16):
        raise UserError(f"samples are {tensor.dtype}; give uint8, uint16 or floats in [-1, 1].")
    if len(tensor) == 0:
        raise UserError("there are no samples; give at least one.")
    if tensor.ndim == 2 and tensor.is_floating_point():
        return tensor.contiguous()
    if tensor.ndim != 4:
        raise UserError(
            f"samples have the shape {tuple(tensor.shape)}; give images (N, 3, H, W) or (N, H, W, 3), or points (N, d)."
        )
    if not is_channels_last(tensor):
        tensor = tensor.permute(0, 2, 3, 1)
    if tensor.shape[-1] not in (1, 3):
        raise UserError(f"images have {tensor.shape[-1]} channels; give 3 (RGB) or 1 (grey).")
    if tensor.is_floating_point() and tensor.abs().max() > 1:
        raise UserError("images of floats have values beyond [-1, 1]; divide 0 to 255 by 127.5 and subtract 1.")
    return tensor.contiguous()


def sample_shape(stored: Tensor) -> tuple[int, ...]:
    """The shape of a stored sample as networks see it: (C, R, R), or (d,). Raises UserError if it is not square."""
    if stored.ndim == 2:
        return tuple(stored.shape[1:])
    height, width, channels = stored.shape[1:]
    if height != width:
        raise UserError(f"images are {width}x{height}; make them square, as rdmd.ImageFolder does.")
    return channels, height, width


def repeated(stored: Tensor, channels: int) -> Tensor:
    """Grey stored images with their channel repeated where `channels` are 3; anything else as it is."""
    grey = stored.ndim == 4 and stored.shape[3] == 1 and channels == 3
    return stored.expand(-1, -1, -1, 3).contiguous() if grey else stored


def channels_first(stored: Tensor) -> Tensor:
    """Stored images as (N, C, H, W); points as they are."""
    return stored.permute(0, 3, 1, 2).contiguous() if stored.ndim == 4 else stored


def is_channels_last(images: Tensor | np.ndarray) -> bool:
    """Whether images, (..., H, W, C) or (..., C, H, W), have their channels at the end."""
    return images.shape[-1] in (1, 3) and images.shape[-3] not in (1, 3)


def _stacked(samples: Any) -> Tensor:
    """The samples of a sequence or a dataset as one tensor."""
    items = first_samples(samples, len(samples)) if hasattr(samples, "__len__") else list(samples)
    samples = [item[0] if isinstance(item, tuple) else item for item in items]
    if samples and all(isinstance(sample, Image.Image) for sample in samples):
        samples = alike([folders.picture_of(sample, folders.Form("auto")).pixels for sample in samples])
    tensors = [torch.as_tensor(sample) for sample in samples]
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise UserError(
            f"samples have different shapes, such as {' and '.join(map(str, sorted(shapes)[:2]))}; resize images to "
            "one size, as rdmd.ImageFolder does."
        )
    if not tensors:
        raise UserError("there are no samples; give at least one.")
    return torch.stack(tensors)


def first_samples(samples: Any, n: int) -> list[Any]:
    """The first n samples of a tensor, an array, a sequence or a dataset, or all where there are fewer."""
    # A dataset of PyTorch need not raise an IndexError, which would end an iteration.
    return [samples[i] for i in range(min(n, len(samples)))]


def alike(images: list[np.ndarray]) -> list[np.ndarray]:
    """Images with as many channels, and bits where they are grey, as the largest of them has."""
    channels = max(image.shape[2] for image in images)
    bits = max(map(bits_of, images)) if channels == 1 else 8
    return [with_channels(with_bits(image, bits), channels) for image in images]


def digest_of(stored: Tensor) -> str:
    """The SHA-256 of samples: of their type, shape and values."""
    digest = hashlib.sha256(f"{stored.dtype} {tuple(stored.shape)}\n".encode())
    digest.update(stored.cpu().contiguous().numpy().data)
    return digest.hexdigest()
