"""One domain of params.yaml, from what the user brought to shards."""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np

from rdmd.config import Digits, Domain, ImageFolder, Noise, Points, Settings
from rdmd.data.manifest import BrokenSample, Duplicate, Manifest, digest_of, write_manifest
from rdmd.data.readers import archives, digits, images, mnist, noise, points
from rdmd.data.samples import Broken, Reading, Sample, Split
from rdmd.data.shards import Entry, write_shards
from rdmd.data.splits import content_digest, fraction, held_out, splits_of
from rdmd.data.transforms import colour, fit, hues
from rdmd.errors import UserError
from rdmd.files import replacing_folder

Name = Literal["source", "target", "features"]
Items = Iterable[Sample | Broken]
Progress = Callable[[Items, int, str], Items]
"""Wraps the items of a domain as they are read, given how many there are and the domain's name."""


@dataclass(frozen=True)
class _Scan:
    """A sample that is whole and no duplicate, without its array: `digest` is that of its content as it came."""

    name: str
    digest: str
    label: int | None
    split: Split | None


@dataclass
class _LeftOut:
    """What was found but not stored, gathered while reading."""

    broken: list[BrokenSample] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)


def bar(items: Items, total: int, name: str) -> Items:
    """A progress bar with an ETA on a terminal; nothing where stderr is not one."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=f"preprocess {name}", unit="sample", disable=None, dynamic_ncols=True)


def preprocess(settings: Settings, name: Name, out: Path, progress: Progress = bar) -> Manifest:
    """Read the domain `name`, size, colour and split its samples, and write shards to `out`.

    The folder `out` is replaced as a whole or left as it was. Equal inputs and settings give equal bytes.
    Samples that cannot be decoded are skipped and named in the manifest, and so are exact repetitions of an
    earlier one.

    Raises `UserError` if the domain is missing, empty or malformed, or if more than
    `preprocess.max_broken_fraction` of its samples are broken.
    """
    domain = _domain(settings, name)
    _check_copies(domain, name)
    reading = _open(domain, name, settings)
    if reading.total == 0:
        raise UserError(
            f"domains.{name}: {domain.path} holds nothing of the classes asked for; change domains.{name}.classes."
        )
    left_out = _LeftOut()
    # Splits are known when all is read; until then the arrays, at their final size, wait on the disk.
    with replacing_folder(out) as folder, tempfile.TemporaryFile(dir=folder) as waiting:
        scans = [
            _put_down(sample, digest, domain, settings, waiting)
            for sample, digest in _whole(progress(reading.items, reading.total, name), left_out)
        ]
        _check_broken(left_out.broken, reading.total, domain, settings)
        splits = _splits(scans, domain, settings)
        waiting.seek(0)
        entries = (
            entry
            for scan, split, array in zip(scans, splits, _picked_up(waiting, len(scans), settings, domain), strict=True)
            if split is not None
            for entry in _entries(scan, split, array, domain, settings)
        )
        written = write_shards(folder, entries, settings.preprocess.samples_per_shard)
        pictures = settings.preprocess.kind == "images"
        manifest = Manifest(
            domain=name,
            kind="noise" if pictures and isinstance(domain, Noise) else settings.preprocess.kind,
            resolution=settings.preprocess.resolution if pictures else None,
            channels=3 if pictures else None,
            seed=settings.seed,
            reader=domain.model_dump(mode="json"),
            preprocess=settings.preprocess.model_dump(mode="json"),
            counts=written.counts,
            label_counts=written.label_counts,
            shards=written.shards,
            samples_sha256=written.samples_sha256,
            broken=tuple(left_out.broken),
            duplicates=tuple(left_out.duplicates),
            digest=digest_of(written.shards),
        )
        write_manifest(folder, manifest)
    return manifest


def _domain(settings: Settings, name: Name) -> Domain:
    domain = {
        "source": settings.domains.source,
        "target": settings.domains.target,
        "features": settings.domains.features,
    }[name]
    if domain is None:
        raise UserError(f"params.yaml has no domains.{name}; add one, or leave this domain out.")
    return domain


def _check_copies(domain: Domain, name: Name) -> None:
    if isinstance(domain, Digits) and domain.colour == "grey" and (domain.train_copies, domain.test_copies) != (1, 1):
        raise UserError(
            f"domains.{name} asks for several copies of each scan in grey, which would all be equal; set "
            f"domains.{name}.colour to `hue`, or train_copies and test_copies to 1."
        )


def stored_shape(settings: Settings) -> tuple[int, ...]:
    """A sample as shards hold it: (H, W, 3), or (2,)."""
    return (2,) if settings.preprocess.kind == "points" else (*settings.sample_shape[1:], 3)


def _open(domain: Domain, name: Name, settings: Settings) -> Reading:
    key = f"domains.{name}"
    match domain:
        case Points():
            return points.read(domain, name, settings.seed)
        case Noise():
            return noise.read(domain, stored_shape(settings), name, settings.seed)
        case Digits(reader="digits"):
            return digits.read(domain)
        case Digits():
            return mnist.read(domain, key)
        case ImageFolder(reader="archive"):
            return archives.read(domain, key)
        case ImageFolder():
            return images.read(domain, key)


def _whole(items: Items, left_out: _LeftOut) -> Iterator[tuple[Sample, str]]:
    """The readable samples with their digests, each content once, in order; the others are noted in `left_out`."""
    first: dict[str, str] = {}
    for item in items:
        if isinstance(item, Broken):
            left_out.broken.append(BrokenSample(name=item.name, reason=item.reason))
            continue
        digest = content_digest(item.array)
        if digest in first:
            left_out.duplicates.append(Duplicate(name=item.name, same_as=first[digest]))
            continue
        first[digest] = item.name
        yield item, digest


def _put_down(sample: Sample, digest: str, domain: Domain, settings: Settings, file: IO[bytes]) -> _Scan:
    """Append the sample's array, cropped and resized where it is a picture, to `file`."""
    array = sample.array
    if not isinstance(domain, Points | Noise):
        array = fit(array, settings.preprocess.resolution, settings.preprocess.fit)
    file.write(array.tobytes())
    return _Scan(sample.name, digest, sample.label, sample.split)


def _picked_up(file: IO[bytes], count: int, settings: Settings, domain: Domain) -> Iterator[np.ndarray]:
    """The arrays that `_put_down` wrote."""
    shape = stored_shape(settings)
    dtype = np.dtype(np.float32 if isinstance(domain, Points | Noise) else np.uint8)
    for _ in range(count):
        yield np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def _splits(scans: list[_Scan], domain: Domain, settings: Settings) -> list[Split | None]:
    """The split of each scan, by the data set where it has splits of its own; None beyond `domain.limit`."""
    ranked = splits_of(settings.seed, [(scan.digest, scan.label) for scan in scans], settings.preprocess.test_fraction)
    splits: list[Split | None] = [scan.split or split for scan, split in zip(scans, ranked, strict=True)]
    if not isinstance(domain, Digits) or domain.limit is None or domain.limit >= len(scans):
        return splits
    # Both splits shrink alike. The purpose keeps this draw independent of the split's.
    order = sorted(range(len(scans)), key=lambda i: fraction(settings.seed, "limit", scans[i].digest))
    test = [i for i in order if splits[i] == "test"]
    train = [i for i in order if splits[i] == "train"]
    count = held_out(domain.limit, len(test) / len(scans)) if test else 0
    kept = {*test[:count], *train[: domain.limit - count]}
    return [split if i in kept else None for i, split in enumerate(splits)]


def _entries(scan: _Scan, split: Split, array: np.ndarray, domain: Domain, settings: Settings) -> Iterator[Entry]:
    def entry(stored: np.ndarray, hue: float | None) -> Entry:
        return Entry(scan.name, split, stored, scan.digest, scan.label, hue)

    if isinstance(domain, Digits) and domain.colour == "hue":
        copies = domain.train_copies if split == "train" else domain.test_copies
        for hue in hues(settings.seed, scan.digest, copies):
            yield entry(colour(array, hue), hue)
    else:
        yield entry(array, None)


def _check_broken(broken: list[BrokenSample], found: int, domain: Domain, settings: Settings) -> None:
    if len(broken) <= settings.preprocess.max_broken_fraction * found:
        return
    first = "; ".join(f"{sample.name}: {sample.reason}" for sample in broken[:3])
    rest = "; ..." if len(broken) > 3 else ""
    raise UserError(
        f"{len(broken)} of {found} pictures in {domain.path} cannot be used ({first}{rest}); mend or remove "
        f"them, or raise preprocess.max_broken_fraction, now {settings.preprocess.max_broken_fraction:g}."
    )
