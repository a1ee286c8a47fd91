"""`manifest.json`: the contents of a folder of shards, and how they were made."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from rdmd import files
from rdmd.data.samples import Split
from rdmd.errors import UserError

MANIFEST = "manifest.json"
SAMPLES = "samples.csv"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shard(_Frozen):
    """One tar file of samples."""

    file: str
    split: Split
    samples: int
    bytes: int
    sha256: str


class BrokenSample(_Frozen):
    """A sample that could not be decoded, which is left out."""

    name: str
    reason: str


class Duplicate(_Frozen):
    """A sample whose content equals that of an earlier sample, which is left out."""

    name: str
    same_as: str


class Latents(_Frozen):
    """The latents beside the images: their shape (h, w, C), the codec's SHA-256, and their standard deviation over the
    training split. They are float16."""

    shape: tuple[int, int, int]
    codec: str
    std: float


class Manifest(_Frozen):
    """One domain. `digest` changes if, and only if, the samples or their order change."""

    format: Literal[1] = 1
    domain: str
    kind: Literal["images", "points", "noise"]
    """Images, float32 points, or float32 noise in the shape of images (noise on the plane is points)."""
    resolution: int | None
    """Side in pixels; null for points."""
    channels: int | None
    latents: Latents | None = None
    """null where networks see the images themselves."""
    bits: Literal[8, 16] = 8
    """Of a value of an image: uint8 or uint16."""
    seed: int
    reader: dict[str, Any]
    """The domain's settings in params.yaml, for people; no code reads them back."""
    preprocess: dict[str, Any]
    counts: dict[Split, int]
    label_counts: dict[Split, dict[str, int]]
    shards: tuple[Shard, ...]
    samples_sha256: str
    """SHA-256 of samples.csv, which lists every sample."""
    broken: tuple[BrokenSample, ...]
    duplicates: tuple[Duplicate, ...]
    others: dict[str, int] = {}
    """Files of other kinds in the domain's folder or archive, which are not read: how many there are of each suffix."""
    digest: str

    @property
    def dtype(self) -> type[np.generic]:
        """Type of the stored values: uint8 or uint16 for images, float32 otherwise."""
        return (np.uint16 if self.bits == 16 else np.uint8) if self.kind == "images" else np.float32

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a stored sample: (H, W, C) for images and their noise, (2,) for points."""
        if self.resolution is None or self.channels is None:
            return (2,)
        return (self.resolution, self.resolution, self.channels)

    @property
    def trained_shape(self) -> tuple[int, ...]:
        """Shape of a sample as networks see it: (C, H, W) of images or latents, or (2,)."""
        *sides, channels = self.sample_shape if self.latents is None else self.latents.shape
        return (channels, *sides)

    def of(self, split: Split) -> tuple[Shard, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)


def digest_of(shards: Sequence[Shard]) -> str:
    """SHA-256 over the shards' splits, sample counts and hashes, in order."""
    lines = [f"{shard.split} {shard.samples} {shard.sha256}\n" for shard in shards]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`: the same manifest gives the same bytes."""
    files.write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of shards. Raises `UserError` if there is none, or not of this format."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path} does not exist; make it with `rdmd preprocess {folder.name}` or `dvc repro`."
        ) from None
    except (ValidationError, ValueError):
        raise UserError(f"{path} is damaged or of another version; {remedy(folder)}.") from None


def remedy(folder: Path) -> str:
    """How to make a damaged folder of shards anew."""
    name = folder.name
    return f"make it again with `rdmd preprocess {name}` or `dvc repro -f preprocess@{name}`"


def describe(manifest: Manifest) -> str:
    """One line for a person: the domain's contents, and what was left out."""
    left_out = {"broken": len(manifest.broken), "duplicate": len(manifest.duplicates), **manifest.others}
    shown = ", ".join(f"{count} {kind}" for kind, count in left_out.items() if count)
    tail = f"; left out: {shown}" if shown else ""
    shape = "x".join(str(side) for side in manifest.sample_shape)
    if manifest.latents is not None:
        shape += f", as latents {'x'.join(map(str, manifest.latents.shape))} (deviation {manifest.latents.std:.3g})"
    return (
        f"{manifest.domain}: {manifest.counts['train']} train and {manifest.counts['test']} test samples of "
        f"{shape}, digest {manifest.digest[:12]}{tail}"
    )
