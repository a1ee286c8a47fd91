"""Any sample of a split without reading what lies before it (`stored_row`).

What is read is checked to be the sample that was meant, by its name and its header, each time; the bytes of whole
shards are checked where they are read whole (`rdmd.domains.shards`), by `rdmd validate` for one.
"""

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdmd.domains.manifest import read_manifest, remedy
from rdmd.domains.samples import Split
from rdmd.domains.shards import empty_split
from rdmd.domains.stored_row import BLOCK, NAME, StoredRow, stored_row
from rdmd.errors import UserError

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
    _row: StoredRow

    @staticmethod
    def open(folder: Path, split: Split) -> "StoredSamples":
        """In time that goes with the number of shards. Raises `UserError`, naming the file, if one is missing or cut
        short, or if the split is empty."""
        manifest = read_manifest(folder)
        count = manifest.counts.get(split, 0)
        if count == 0:
            raise empty_split(folder, split)
        shards = manifest.of(split)
        row = stored_row(manifest, split)
        _allow_open_files(len(shards))
        files: list[int] = []
        for shard in shards:
            path = folder / shard.file
            try:
                files.append(os.open(path, os.O_RDONLY))
            except FileNotFoundError:
                raise UserError(f"{path} is missing; {remedy(folder)}.") from None
            if os.fstat(files[-1]).st_size != shard.bytes or shard.samples * row.size > shard.bytes:
                raise _changed(path, folder)
        firsts = np.cumsum([0, *(shard.samples for shard in shards)])
        return StoredSamples(
            folder, split, manifest.sample_shape, np.dtype(manifest.dtype), tuple(files), firsts, row
        )

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, index: np.ndarray, out: np.ndarray) -> None:
        """Put the samples at `index` (n,) into `out` (n, *shape), which is contiguous and of this dtype.

        Raises `UserError`, naming the shard, where something else lies than the manifest says.
        """
        rows = out.reshape(len(index), -1).view(np.uint8)
        heads = np.empty((len(index), BLOCK + len(self._row.header)), np.uint8)
        shards = np.searchsorted(self._firsts, index, side="right") - 1
        offsets = (index - self._firsts[shards]) * self._row.size + self._row.skip
        wanted = heads.shape[1] + rows.shape[1]
        for i, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist(), strict=True)):
            if os.preadv(self._files[shard], [heads[i], rows[i]], offset) != wanted:
                raise self._wrong(shard)
        for i, (shard, sample) in enumerate(zip(shards.tolist(), index.tolist(), strict=True)):
            head = heads[i].tobytes()
            name = f"{self.split}-{sample:08d}.npy".encode()
            if head[:NAME].rstrip(b"\0") != name or not head.endswith(self._row.header):
                raise self._wrong(shard)

    def _wrong(self, shard: int) -> UserError:
        return _changed(self.folder / f"{self.split}-{shard:06d}.tar", self.folder)

    def __del__(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):
                os.close(file)


def _changed(path: Path, folder: Path) -> UserError:
    return UserError(f"{path} was changed or cut short after it was made; {remedy(folder)}.")


def _allow_open_files(count: int) -> None:
    """Raise this process's own limit as far as `count` shards need and the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
