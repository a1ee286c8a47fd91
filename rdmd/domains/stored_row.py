"""Shards as what they are: tables of equal rows.

All samples of a domain have one shape, so each takes as many bytes of its tar file as any other, and where it begins is
arithmetic.
"""

import io
from dataclasses import dataclass

import numpy as np

from rdmd.domains.manifest import Manifest
from rdmd.domains.samples import Split

BLOCK = 512  # of a tar file: each member is a header of one block, then its bytes in whole blocks
NAME = 100  # bytes of that header


@dataclass(frozen=True)
class StoredRow:
    """What lies between the start of one sample and that of the next."""

    skip: int
    """Bytes before the tar header of its array: those of its label, where samples are labelled."""
    size: int
    header: bytes
    """What stands before the numbers in the `.npy` entry: the same for arrays of one shape and type."""

    @property
    def numbers(self) -> int:
        """The byte at which the numbers begin."""
        return self.skip + BLOCK + len(self.header)


def stored_row(manifest: Manifest, split: Split) -> StoredRow:
    """The row of every sample of a split."""
    dtype = np.dtype(manifest.dtype)
    header = npy_header(manifest.sample_shape, dtype)
    labelled = sum(manifest.label_counts.get(split, {}).values()) == manifest.counts[split]
    skip = 2 * BLOCK if labelled else 0
    entry = len(header) + dtype.itemsize * int(np.prod(manifest.sample_shape))
    return StoredRow(skip, skip + BLOCK + -(-entry // BLOCK) * BLOCK, header)


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """What stands before the numbers in every `.npy` entry of samples of one shape and type."""
    sample = np.zeros(shape, dtype)
    return npy_bytes(sample)[: -sample.nbytes]


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as a `.npy` entry."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
