"""MNIST's IDX files (LeCun, Cortes and Burges), plain or gzipped, and others of that format."""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdmd.config import Digits
from rdmd.data.samples import Reading, Sample, Split, refuse_lfs_pointer
from rdmd.errors import UserError

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
OFFICIAL: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MAX_BYTES = 2**31
"""A header that promises more is damaged: MNIST's largest descendants hold less."""


@dataclass(frozen=True)
class _Pair:
    images: Path
    labels: Path
    split: Split


def read(domain: Digits, key: str) -> Reading:
    """The scans of `domain.classes`: uint8 (H, W, 3), grey, labelled.

    Either of the two official pairs of files is enough. With both, MNIST's own split holds; with one, the content
    decides. `key` (such as `domains.source`) stands for the domain in messages. Raises `UserError` with the file's
    name if there is no pair, one file of a pair is missing, or a file is damaged.
    """
    folder = domain.path
    pairs = [pair for split in OFFICIAL if (pair := _find(folder, split)) is not None]
    if not pairs:
        names = ", ".join(f"{name}.gz" for pair in OFFICIAL.values() for name in pair)
        raise UserError(
            f"{folder} holds none of MNIST's files; put {names} there (gunzipped is fine, and one pair of "
            f"images and labels is enough) or change {key}.path."
        )
    opened = [(pair, *_load(pair)) for pair in pairs]
    wanted = [np.flatnonzero(np.isin(labels, domain.classes)) for _, _, labels in opened]
    return Reading(sum(map(len, wanted)), _samples(opened, wanted))


def _samples(opened: list[tuple[_Pair, np.ndarray, np.ndarray]], wanted: list[np.ndarray]) -> Iterator[Sample]:
    official = len(opened) == len(OFFICIAL)
    for (pair, scans, labels), chosen in zip(opened, wanted, strict=True):
        for index in chosen:
            scan = np.repeat(scans[index][..., None], 3, axis=2)
            name = f"{pair.images.name.removesuffix('.gz')}[{index}]"
            yield Sample(name, scan, int(labels[index]), pair.split if official else None)


def _find(folder: Path, split: Split) -> _Pair | None:
    images, labels = (_present(folder, name) for name in OFFICIAL[split])
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        present = images or labels
        missing = OFFICIAL[split][0 if images is None else 1]
        raise UserError(f"{present} is there but {missing} (or {missing}.gz) is not; put it in {folder} too.")
    return _Pair(images, labels, split)


def _present(folder: Path, name: str) -> Path | None:
    # Some mirrors write a dot: train-images.idx3-ubyte.
    dotted = ".idx".join(name.rsplit("-idx", 1))
    candidates = (folder / f"{stem}{suffix}" for suffix in ("", ".gz") for stem in (name, dotted))
    return next((path for path in candidates if path.is_file()), None)


def _load(pair: _Pair) -> tuple[np.ndarray, np.ndarray]:
    """Scans, uint8 (N, H, W), and labels, uint8 (N,)."""
    scans, labels = _idx(pair.images, IMAGES_MAGIC, 3), _idx(pair.labels, LABELS_MAGIC, 1)
    if len(scans) != len(labels):
        raise UserError(
            f"{pair.images} holds {len(scans)} scans but {pair.labels} {len(labels)} labels; fetch both "
            "again from one place."
        )
    return scans, labels


def _idx(path: Path, magic: int, dimensions: int) -> np.ndarray:
    """The array in an IDX file: magic number, one size per dimension (big-endian), then the bytes."""
    remedy = "fetch it again"
    refuse_lfs_pointer(path)
    header_bytes = 4 * (1 + dimensions)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(header_bytes)
            if len(header) < header_bytes:
                raise UserError(f"{path} is cut short; {remedy}.")
            found, *sizes = struct.unpack(f">{1 + dimensions}I", header)
            if found != magic:
                raise UserError(f"{path} starts with {found} instead of IDX's {magic}; {remedy}.")
            count = math.prod(sizes)
            if not 0 < count <= MAX_BYTES:
                raise UserError(f"{path} promises {' x '.join(map(str, sizes))} values; {remedy}.")
            # One byte more than promised, to notice a file that is too long without unpacking all of it.
            data = file.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}.") from None
    if len(data) != count:
        extent = "more" if len(data) > count else "fewer"
        raise UserError(f"{path} holds {extent} bytes than its header says ({count}); {remedy}.")
    return np.frombuffer(data, np.uint8).reshape(sizes)
