"""What readers give: decoded samples, and the names of those that could not be decoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True, eq=False)
class Sample:
    """One decoded sample, as it came: not yet cropped, resized or coloured."""

    name: str
    """Where it came from: a path below the domain's folder, or an index within a file."""
    array: np.ndarray
    """uint8 (H, W, 3) in 0..255; float32 (2,); or, of noise, float32 (H, W, 3)."""
    label: int | None = None
    split: Split | None = None
    """The data set's own split; None where the content decides (see `splits`)."""


@dataclass(frozen=True)
class Broken:
    """A sample that could not be decoded, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """A domain opened for reading: how many samples it holds, broken ones included, and the samples."""

    total: int
    items: Iterator[Sample | Broken]


def printable(name: str) -> str:
    """A file name as text that can be written as UTF-8, whatever bytes the file system holds."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
