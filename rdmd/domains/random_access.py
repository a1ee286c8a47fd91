"""Any sample of a split without reading what lies before it: shards as what they are, tables of equal rows.

All samples of a domain have one shape, so each takes as many bytes of its shard as any other and where it begins is
arithmetic. What is read is checked to be the sample that was meant, by its name and its header, each time; the bytes
of whole shards are checked where they are read whole (`rdmd.domains.shards`), by `rdmd validate` for one.
"""

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdmd.domains.manifest import Manifest, read_manifest, remedy
from rdmd.domains.samples import Split
from rdmd.domains.shards import empty_split, npy_header
from rdmd.errors import UserError

_BLOCK = 512  # of a tar file: each member is a header of one block, then its bytes in whole blocks
_NAME = 100  # bytes of that header
# Files that this process may have open for other things.
_OTHER_FILES = 256


@dataclass(frozen=True, eq=False)
class StoredSamples:
    """A split on disk, read by index. Safe to use from several threads."""

    folder: Path
    split: Split
    shape: tuple[int, ...]
    """Of one sample as stored: (H, W, 3) or (2,)."""
    dtype: np.dtype
    _files: tuple[int, ...]
    _firsts: np.ndarray
    """The index of each shard's first sample, and the number of samples after the last."""
    _skip: int
    """Bytes of a row before the header of its array."""
    _row: int
    """Bytes from one sample to the next."""
    _header: bytes

    @staticmethod
    def open(folder: Path, split: Split) -> "StoredSamples":
        """In time that goes with the number of shards. Raises `UserError`, naming the file, if one is missing or cut
        short, or if the split is empty."""
        manifest = read_manifest(folder)
        count = manifest.counts.get(split, 0)
        if count == 0:
            raise empty_split(folder, split)
        shards = manifest.of(split)
        dtype = np.dtype(manifest.dtype)
        header = npy_header(manifest.sample_shape, dtype)
        skip = 2 * _BLOCK if _labelled(manifest, split) else 0
        row = skip + _BLOCK + _whole_blocks(len(header) + dtype.itemsize * int(np.prod(manifest.sample_shape)))
        _allow_open_files(len(shards))
        files: list[int] = []
        for shard in shards:
            path = folder / shard.file
            try:
                files.append(os.open(path, os.O_RDONLY))
            except FileNotFoundError:
                raise UserError(f"{path} is missing; {remedy(folder)}.") from None
            if os.fstat(files[-1]).st_size != shard.bytes or shard.samples * row > shard.bytes:
                raise _changed(path, folder)
        firsts = np.cumsum([0, *(shard.samples for shard in shards)])
        return StoredSamples(folder, split, manifest.sample_shape, dtype, tuple(files), firsts, skip, row, header)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, index: np.ndarray, out: np.ndarray) -> None:
        """Put the samples at `index` (n,) into `out` (n, *shape), which is contiguous and of this dtype.

        Raises `UserError`, naming the shard, where something else lies than the manifest says.
        """
        rows = out.reshape(len(index), -1).view(np.uint8)
        heads = np.empty((len(index), _BLOCK + len(self._header)), np.uint8)
        shards = np.searchsorted(self._firsts, index, side="right") - 1
        offsets = (index - self._firsts[shards]) * self._row + self._skip
        wanted = heads.shape[1] + rows.shape[1]
        for i, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist(), strict=True)):
            if os.preadv(self._files[shard], [heads[i], rows[i]], offset) != wanted:
                raise self._wrong(shard)
        for i, (shard, sample) in enumerate(zip(shards.tolist(), index.tolist(), strict=True)):
            head = heads[i].tobytes()
            name = f"{self.split}-{sample:08d}.npy".encode()
            if head[:_NAME].rstrip(b"\0") != name or not head.endswith(self._header):
                raise self._wrong(shard)

    def _wrong(self, shard: int) -> UserError:
        return _changed(self.folder / f"{self.split}-{shard:06d}.tar", self.folder)

    def __del__(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):
                os.close(file)


def _labelled(manifest: Manifest, split: Split) -> bool:
    return sum(manifest.label_counts.get(split, {}).values()) == manifest.counts[split]


def _whole_blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _changed(path: Path, folder: Path) -> UserError:
    return UserError(f"{path} was changed or cut short after it was made; {remedy(folder)}.")


def _allow_open_files(count: int) -> None:
    """Raise this process's own limit as far as `count` shards need and the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
