"""What readers return: decoded samples, and the names of files that could not be decoded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rdmd.errors import UserError

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
# The regions of a sample's map, from 1.
REGIONS = ("skin", "hair", "clothes", "background")
# How a file begins that Git LFS left in the place of the real one.
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, eq=False)
class Sample:
    """One decoded sample, not yet cropped, resized or coloured."""

    name: str
    """Its path below the domain's folder, or its index within a file."""
    array: np.ndarray
    """uint8 (H, W, 3), or grey (H, W, 1), uint8 or uint16; float32 (2,); or, of noise, float32 (H, W, C)."""
    label: int | None = None
    split: Split | None = None
    """The data set's own split; None if the content decides (see `splits`)."""
    facts: dict[str, Any] | None = None
    """What is known of the sample. `pair` is what it shares with its true counterpart in the other domain alone."""
    regions: np.ndarray | None = None
    """uint8 of the sample's height and width: which of `REGIONS` each pixel belongs to, 0 for none."""


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
    others: dict[str, int] = field(default_factory=dict)
    """Files of other kinds, which are not read: how many there are of each suffix."""


def refuse_lfs_pointer(path: Path) -> None:
    """Raise `UserError` if Git LFS left a pointer in the place of the file."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path} is a Git LFS pointer and not the file itself; run `git lfs pull`.")


def printable(name: str) -> str:
    """A file name as text that can be written as UTF-8, whatever bytes the file system holds."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
