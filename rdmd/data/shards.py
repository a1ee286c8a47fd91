"""A domain on disk: WebDataset shards, written with repeatable bytes and verified when read.

Only the functions that read samples import WebDataset and torch, which takes seconds: writing needs neither. A folder
holds `train-000000.tar`, ..., `test-000000.tar`, ... with an entry `<key>.npy` (uint8 or uint16 (H, W, C), or float32
(2,)) and, where samples are labelled, `<key>.cls` for each sample; where more is known, also `<key>.json` (facts) and
`<key>.regions.npy` (uint8 (H, W)), as `Sample` describes them; with a codec `<key>.latents.npy`
(float16 (h, w, C)); `samples.csv` names the samples; `manifest.json` has the
hashes.
"""

import contextlib
import csv
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdmd import files
from rdmd.data.manifest import SAMPLES, Manifest, Shard, read_manifest, remedy
from rdmd.data.samples import SPLITS, Split
from rdmd.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Entry:
    """One sample, ready to be stored."""

    name: str
    split: Split
    array: np.ndarray
    scan: str
    """Digest of the decoded content before resizing and colouring: the same for all copies of one scan."""
    label: int | None = None
    hue: float | None = None
    facts: dict[str, Any] | None = None
    regions: np.ndarray | None = None
    latents: np.ndarray | None = None


@dataclass(frozen=True)
class Row:
    """One line of samples.csv; empty cells are empty strings."""

    key: str
    split: Split
    name: str
    sha256: str
    scan: str
    label: str
    hue: str


@dataclass(frozen=True)
class Written:
    """What `write_shards` wrote."""

    shards: tuple[Shard, ...]
    counts: dict[Split, int]
    label_counts: dict[Split, dict[str, int]]
    samples_sha256: str


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the samples of a split, as `Sample` describes it."""

    facts: list[dict[str, Any]]
    regions: np.ndarray | None
    """uint8 (N, H, W), or None where a sample has no map."""


@dataclass(frozen=True, eq=False)
class LoadedDomain:
    """One split in memory, in stored order."""

    data: "torch.Tensor"
    """Images (N, C, H, W), uint8 or uint16, or float32 (N, 2); of noise, float32 (N, C, H, W)."""
    table: Callable[[], list[Row]]
    """Reads the samples' lines of samples.csv."""
    known: Callable[[], Known | None] = lambda: None
    """Reads what is known of the samples, in their order; None if there are samples of which nothing is."""

    @cached_property
    def rows(self) -> list[Row]:
        """The samples' lines of samples.csv."""
        return self.table()

    @cached_property
    def labels(self) -> "torch.Tensor | None":
        """int64 (N,), or None where no sample is labelled."""
        import torch

        labels = [row.label for row in self.rows]
        return None if "" in labels else torch.tensor([int(label) for label in labels])

    @property
    def scans(self) -> tuple[str, ...]:
        """Digest of the content behind each sample; copies of one scan share it, so it is the unit of independent
        data."""
        return tuple(row.scan for row in self.rows)


def write_shards(folder: Path, entries: Iterable[Entry], samples_per_shard: int) -> Written:
    """Write `entries` into an empty folder, in their order, and list them in samples.csv.

    Equal entries give equal bytes. A failure leaves an incomplete folder, which the caller removes.
    """
    counts: Counter[Split] = Counter()
    labels: dict[Split, Counter[int]] = {split: Counter() for split in SPLITS}
    with contextlib.ExitStack() as stack:
        table = stack.enter_context((folder / SAMPLES).open("w", encoding="utf-8", newline=""))
        lines = csv.writer(table, lineterminator="\n")
        lines.writerow(Row.__dataclass_fields__)
        open_shards: dict[Split, tarfile.TarFile] = {}
        for entry in entries:
            split, label = entry.split, entry.label
            shard, position = divmod(counts[split], samples_per_shard)
            if position == 0:
                if split in open_shards:
                    open_shards[split].close()
                path = folder / f"{split}-{shard:06d}.tar"
                open_shards[split] = stack.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
            key = f"{split}-{counts[split]:08d}"
            if label is not None:
                _add(open_shards[split], f"{key}.cls", str(label).encode())
                labels[split][label] += 1
            _add(open_shards[split], f"{key}.npy", _npy_bytes(entry.array))
            if entry.facts is not None:
                _add(open_shards[split], f"{key}.json", json.dumps(entry.facts, sort_keys=True).encode())
            if entry.regions is not None:
                _add(open_shards[split], f"{key}.regions.npy", _npy_bytes(entry.regions))
            if entry.latents is not None:
                _add(open_shards[split], f"{key}.latents.npy", _npy_bytes(entry.latents))
            counts[split] += 1
            sha256 = hashlib.sha256(entry.array.tobytes()).hexdigest()
            shown = "" if label is None else label
            lines.writerow([key, split, entry.name, sha256, entry.scan, shown, _hue(entry.hue)])
    return Written(
        shards=tuple(shard for split in SPLITS for shard in _shards(folder, split, counts[split], samples_per_shard)),
        counts={split: counts[split] for split in SPLITS},
        label_counts={split: {str(label): labels[split][label] for label in sorted(labels[split])} for split in SPLITS},
        samples_sha256=files.sha256_of(folder / SAMPLES),
    )


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a file with a fixed time and owner, so that the bytes are repeatable."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def _hue(hue: float | None) -> str:
    return "" if hue is None else repr(hue)


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _shards(folder: Path, split: Split, count: int, samples_per_shard: int) -> Iterator[Shard]:
    for index, first in enumerate(range(0, count, samples_per_shard)):
        path = folder / f"{split}-{index:06d}.tar"
        yield Shard(
            file=path.name,
            split=split,
            samples=min(samples_per_shard, count - first),
            bytes=path.stat().st_size,
            sha256=files.sha256_of(path),
        )


def trained_array(folder: Path, split: Split) -> np.ndarray:
    """All samples of a split as networks see them: latents, float16 (N, h, w, C), where there are any, or else
    `stored_array`."""
    return stored_array(folder, split, latents=read_manifest(folder).latents is not None)


def stored_array(folder: Path, split: Split, *, latents: bool = False) -> np.ndarray:
    """All samples of a split in stored order as one memory-mapped array: images (N, H, W, C), or float32 (N, 2); or
    their `latents`.

    The first call writes the array beside the shards, named by their digest, and checks every shard's bytes against
    the manifest; later calls check their sizes. Raises `UserError`, naming the file, if a shard is missing, altered or
    truncated, or if the split is empty.
    """
    manifest = read_manifest(folder)
    count = manifest.counts.get(split, 0)
    if count == 0:
        raise empty_split(folder, split)
    for shard in manifest.of(split):
        _check_size(folder, shard)
    part, suffix, shape, dtype = "", "npy", manifest.sample_shape, manifest.dtype
    if latents:
        assert manifest.latents is not None, f"{folder} holds no latents"
        part, suffix, shape, dtype = "-latents", "latents.npy", manifest.latents.shape, np.float16
    path = folder / f"{split}{part}-{manifest.digest[:16]}.npy"
    if not path.exists():
        with files.replacing(path) as temporary:
            array = np.lib.format.open_memmap(temporary, "w+", dtype, (count, *shape))
            # One header for all: reading it from each entry, as numpy does, takes as long as unpacking the entry.
            header = _npy_bytes(array[0])[: -array[0].nbytes]
            for row, (_, entry) in zip(array, stored_samples(folder, manifest, split), strict=True):
                content = entry.get(suffix, b"")
                if not content.startswith(header) or len(content) != len(header) + row.nbytes:
                    raise UserError(f"{folder} holds something else than its manifest says; {remedy(folder)}.")
                row.reshape(-1)[:] = np.frombuffer(content, row.dtype, offset=len(header))
            array.flush()
    # Copy on write: torch warns of arrays that cannot be written.
    return np.load(path, mmap_mode="c")


def read_split(folder: Path, split: Split) -> LoadedDomain:
    """One split of a domain, whole and in memory, in stored order. Raises `UserError` as `stored_array`."""
    import torch

    manifest = read_manifest(folder)
    data = torch.from_numpy(stored_array(folder, split))
    return LoadedDomain(
        data=data.clone() if data.ndim == 2 else data.permute(0, 3, 1, 2).contiguous(),
        table=lambda: [row for row in read_rows(folder, manifest) if row.split == split],
        known=lambda: _known(folder, manifest, split),
    )


def _known(folder: Path, manifest: Manifest, split: Split) -> Known | None:
    facts, maps = [], []
    for _, entry in stored_samples(folder, manifest, split):
        if "json" not in entry:
            return None
        facts.append(json.loads(entry["json"]))
        if "regions.npy" in entry:
            maps.append(np.load(io.BytesIO(entry["regions.npy"]), allow_pickle=False))
    return Known(facts, np.stack(maps) if len(maps) == len(facts) else None)


def empty_split(folder: Path, split: Split) -> UserError:
    """That a domain holds nothing of a split."""
    return UserError(f"{folder} has no {split} samples; add samples to the domain and preprocess again.")


def read_rows(folder: Path, manifest: Manifest) -> list[Row]:
    """The lines of samples.csv, train first. Raises `UserError` if it is missing or altered."""
    path = folder / SAMPLES
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy(folder)}.") from None
    if hashlib.sha256(content).hexdigest() != manifest.samples_sha256:
        raise UserError(f"{path} was changed after it was made; {remedy(folder)}.")
    lines: Iterable[dict[str, Any]] = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return sorted((Row(**line) for line in lines), key=lambda row: SPLITS.index(row.split))


def stored_samples(folder: Path, manifest: Manifest, split: Split) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each sample's key and its entries as bytes, by their suffix (`npy`), in stored order.

    Raises `UserError` at the first shard that is missing or differs from the manifest.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    for sample in group_by_keys(tar_file_expander(_verified(folder, manifest, split))):
        yield sample["__key__"], sample


def _verified(folder: Path, manifest: Manifest, split: Split) -> Iterator[dict[str, Any]]:
    # The open file that was hashed is the one that is read, and its path never passes through WebDataset's
    # URL handling.
    for shard in manifest.of(split):
        path = _check_size(folder, shard)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                raise UserError(f"{path} was changed or cut short after it was made; {remedy(folder)}.")
            file.seek(0)
            yield {"url": shard.file, "stream": file}


def _check_size(folder: Path, shard: Shard) -> Path:
    path = folder / shard.file
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy(folder)}.")
    if path.stat().st_size != shard.bytes:
        raise UserError(f"{path} was changed or cut short after it was made; {remedy(folder)}.")
    return path
