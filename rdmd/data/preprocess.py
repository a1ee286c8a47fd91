"""One domain of params.yaml, from the user's data to shards."""

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from rdmd.config import Avatars, Digits, Domain, DomainName, ImageFolder, Noise, Points, Settings
from rdmd.data.manifest import BrokenSample, Duplicate, Latents, Manifest, digest_of, write_manifest
from rdmd.data.readers import archives, avatars, digits, images, mnist, noise, points
from rdmd.data.samples import Broken, Reading, Sample, Split
from rdmd.data.shards import Entry, write_shards
from rdmd.data.splits import content_digest, fraction, held_out, splits_of
from rdmd.data.transforms import Bits, colour, fit, grey_if_equal, hues, random_crops, with_bits, with_channels
from rdmd.errors import UserError
from rdmd.files import replacing_folder

Items = Iterable[Sample | Broken]
# Images that are encoded together.
ENCODED = 64


class Encoder(Protocol):
    """What gives images their latents (`rdmd.networks.codec.Codec`)."""

    sha256: str

    def latents(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) to float16 (N, h, w, C)."""


@dataclass(frozen=True)
class _Kept:
    """A sample that is whole and no duplicate, without its arrays, which wait; `digest` is the hash of the decoded
    content."""

    name: str
    digest: str
    label: int | None
    split: Split | None
    facts: dict[str, Any] | None
    regions: np.ndarray | None
    arrays: int
    shape: tuple[int, ...]
    dtype: np.dtype


def preprocess(settings: Settings, name: DomainName, out: Path, codec: Encoder | None = None) -> Manifest:
    """Read the domain `name`; size, colour and split its samples; write shards to `out`.

    The folder `out` is replaced as a whole or left as it was. Equal inputs and settings give equal bytes. The manifest
    names the samples that were left out: those that cannot be decoded, and exact repetitions of an earlier sample.
    `codec` is the one at `preprocess.codec`, if there is one; latents may differ in their last bits between machines.

    Raises `UserError` if the domain is missing, empty or malformed, or if more than `preprocess.max_broken_fraction`
    of its samples are broken.
    """
    domain = settings.domains.named.get(name)
    if domain is None:
        raise UserError(f"params.yaml has no domains.{name}; add one, or leave this domain out.")
    reading = _open(domain, name, settings)
    if reading.total == 0:
        raise UserError(
            f"domains.{name}: {domain.path} holds no sample of these classes; change domains.{name}.classes."
        )
    assert (codec is None) == (settings.preprocess.codec is None), "preprocess.codec is not the codec that was opened"
    stored_as_images = not isinstance(domain, Points | Noise)
    coloured = isinstance(domain, Digits) and domain.colour == "hue"
    undecided = stored_as_images and settings.preprocess.channels == "auto" and not coloured
    broken: list[BrokenSample] = []
    duplicates: list[Duplicate] = []
    kept: list[_Kept] = []
    # The splits are known when everything is read; until then the arrays, at their final size, wait on the disk.
    with replacing_folder(out) as folder, tempfile.TemporaryFile(dir=folder) as waiting:
        first: dict[str, str] = {}
        for item in _bar(reading, name):
            if isinstance(item, Broken):
                broken.append(BrokenSample(name=item.name, reason=item.reason))
                continue
            digest = content_digest(item.array)
            if digest in first:
                duplicates.append(Duplicate(name=item.name, same_as=first[digest]))
                continue
            first[digest] = item.name
            array = grey_if_equal(item.array) if undecided else item.array
            arrays = _sized(array, digest, settings) if stored_as_images else [array]
            waiting.writelines(array.tobytes() for array in arrays)
            facts = item.facts or _pair(item, domain)
            form = (len(arrays), arrays[0].shape, arrays[0].dtype)
            kept.append(_Kept(item.name, digest, item.label, item.split, facts, item.regions, *form))
        _check_broken(broken, reading.total, domain, settings)
        waiting.seek(0)
        channels = _channels(kept, settings) if settings.preprocess.kind == "images" else None
        deep = stored_as_images and channels == 1 and any(sample.dtype == np.uint16 for sample in kept)
        bits: Bits = 16 if deep else 8

        def waited(sample: _Kept) -> Iterator[np.ndarray]:
            for _ in range(sample.arrays):
                content = waiting.read(math.prod(sample.shape) * sample.dtype.itemsize)
                array = np.frombuffer(content, sample.dtype).reshape(sample.shape)
                yield with_channels(with_bits(array, bits), channels) if stored_as_images and channels else array

        entries = (
            entry
            for sample, split in zip(kept, _splits(kept, domain, settings), strict=True)
            for array in _of_split(list(waited(sample)), split)
            if split is not None
            for entry in _entries(sample, split, array, domain, settings.seed)
        )
        # The domain `features` is for a classifier of images.
        moments = _Moments(codec) if codec is not None and name != "features" else None
        encoded = entries if moments is None else moments.encoded(entries)
        written = write_shards(folder, encoded, settings.preprocess.samples_per_shard)
        images = settings.preprocess.kind == "images"
        manifest = Manifest(
            domain=name,
            kind="noise" if images and isinstance(domain, Noise) else settings.preprocess.kind,
            resolution=settings.preprocess.resolution if images else None,
            channels=channels,
            bits=bits,
            latents=None if moments is None else moments.described(),
            seed=settings.seed,
            reader=domain.model_dump(mode="json"),
            preprocess=settings.preprocess.model_dump(mode="json"),
            counts=written.counts,
            label_counts=written.label_counts,
            shards=written.shards,
            samples_sha256=written.samples_sha256,
            broken=tuple(broken),
            duplicates=tuple(duplicates),
            others=reading.others,
            digest=digest_of(written.shards),
        )
        write_manifest(folder, manifest)
    return manifest


def _pair(sample: Sample, domain: Domain) -> dict[str, Any] | None:
    """Of a test image whose counterpart has its name: what the two names share."""
    if not isinstance(domain, ImageFolder) or not domain.pairs or sample.split != "test":
        return None
    return {"pair": PurePosixPath(sample.name).relative_to(PurePosixPath(domain.test or "")).with_suffix("").as_posix()}


class _Moments:
    """Encodes entries, and adds up the values of their latents and of the squares."""

    def __init__(self, codec: Encoder) -> None:
        self.codec, self.shape = codec, (0, 0, 0)
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def encoded(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        while batch := list(islice(entries, ENCODED)):
            latents = self.codec.latents(np.stack([entry.array for entry in batch]))
            self.shape = latents.shape[1:]
            for entry, latent in zip(batch, latents, strict=True):
                if entry.split == "train":
                    values = latent.astype(np.float64)
                    self.count, self.sum = self.count + latent.size, self.sum + values.sum()
                    self.squares += np.square(values).sum()
                yield replace(entry, latents=latent)

    def described(self) -> Latents:
        mean = self.sum / max(1, self.count)
        std = math.sqrt(max(0.0, self.squares / max(1, self.count) - mean**2))
        return Latents(shape=self.shape, codec=self.codec.sha256, std=std)


def _bar(reading: Reading, name: str) -> Items:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(
        reading.items, total=reading.total, desc=f"preprocess {name}", unit="sample", disable=None, dynamic_ncols=True
    )


def _channels(kept: list[_Kept], settings: Settings) -> int:
    """The channels of the domain's images, as `preprocess.channels` says."""
    chosen = settings.preprocess.channels
    return max((sample.shape[-1] for sample in kept), default=3) if chosen == "auto" else chosen


def _sized(image: np.ndarray, digest: str, settings: Settings) -> list[np.ndarray]:
    """An image at its final size; with `random_crop` its centre for the test split, then its crops for training."""
    chosen = settings.preprocess
    if chosen.fit != "random_crop":
        return [fit(image, chosen.resolution, chosen.fit)]
    u = fraction(settings.seed, "crop", digest)
    return [fit(image, chosen.resolution, "crop"), *random_crops(image, chosen.resolution, chosen.crops, u)]


def _of_split(arrays: list[np.ndarray], split: Split | None) -> list[np.ndarray]:
    """Those of a sample's arrays, as `_sized` gives them, that its split holds."""
    return arrays[1:] if split == "train" and len(arrays) > 1 else arrays[:1]


def _open(domain: Domain, name: DomainName, settings: Settings) -> Reading:
    key, form = f"domains.{name}", images.Form(settings.preprocess.channels, settings.preprocess.white)
    match domain:
        case Points():
            return points.read(domain, name, settings.seed)
        case Noise():
            return noise.read(domain, settings.stored_shape, name, settings.seed)
        case Avatars():
            return avatars.read(domain, settings.preprocess.resolution, name, settings.seed)
        case Digits(reader="digits"):
            return digits.read(domain)
        case Digits():
            return mnist.read(domain, key)
        case ImageFolder(reader="archive"):
            return archives.read(domain, key, form=form)
        case ImageFolder():
            return images.read(domain, key, form)


def _splits(kept: list[_Kept], domain: Domain, settings: Settings) -> list[Split | None]:
    """The split of each sample, by the data set if it has splits of its own; None beyond `domain.limit`."""
    contents = [(sample.digest, sample.label) for sample in kept]
    ranked = splits_of(settings.seed, contents, settings.preprocess.test_fraction)
    splits = [sample.split or split for sample, split in zip(kept, ranked, strict=True)]
    if not isinstance(domain, Digits) or domain.limit is None or domain.limit >= len(kept):
        return list(splits)
    # Both splits shrink alike. The purpose makes this order independent of the one that decides the split.
    order = sorted(range(len(kept)), key=lambda i: fraction(settings.seed, "limit", kept[i].digest))
    test = [i for i in order if splits[i] == "test"]
    train = [i for i in order if splits[i] == "train"]
    count = held_out(domain.limit, len(test) / len(kept)) if test else 0
    within = {*test[:count], *train[: domain.limit - count]}
    return [split if i in within else None for i, split in enumerate(splits)]


def _entries(sample: _Kept, split: Split, array: np.ndarray, domain: Domain, seed: int) -> Iterator[Entry]:
    if isinstance(domain, Digits) and domain.colour == "hue":
        copies = domain.train_copies if split == "train" else domain.test_copies
        for hue in hues(seed, sample.digest, copies):
            yield Entry(sample.name, split, colour(array, hue), sample.digest, sample.label, hue)
    else:
        yield Entry(sample.name, split, array, sample.digest, sample.label, facts=sample.facts, regions=sample.regions)


def _check_broken(broken: list[BrokenSample], found: int, domain: Domain, settings: Settings) -> None:
    share = settings.preprocess.max_broken_fraction
    # A single one stops no small data set, unless the share is 0.
    allowed = max(1.0, share * found) if share else 0.0
    if len(broken) <= allowed and len(broken) < max(found, 1):
        return
    first = "; ".join(f"{sample.name}: {sample.reason}" for sample in broken[:3])
    rest = "; ..." if len(broken) > 3 else ""
    raise UserError(
        f"{len(broken)} of {found} images in {domain.path} cannot be used ({first}{rest}); mend or remove "
        f"them, or raise preprocess.max_broken_fraction, now {share:g}."
    )
