"""What a folder of shards holds, where it came from and how: `manifest.json`."""

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

FORMAT = 1
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
    """A sample that was left out because it could not be decoded."""

    name: str
    reason: str


class Duplicate(_Frozen):
    """A sample that was left out because its content equals that of an earlier one."""

    name: str
    same_as: str


class Manifest(_Frozen):
    """The account of one domain. `digest` changes when, and only when, the samples or their order do."""

    format: Literal[1] = FORMAT
    domain: str
    kind: Literal["images", "points", "noise"]
    """uint8 pictures, float32 points, or float32 noise in the shape of pictures (noise on the plane is points)."""
    resolution: int | None
    """Side in pixels; null for points."""
    channels: int | None
    seed: int
    reader: dict[str, Any]
    """The domain's settings as they stood in params.yaml, for people; nothing reads them back."""
    preprocess: dict[str, Any]
    counts: dict[Split, int]
    label_counts: dict[Split, dict[str, int]]
    shards: tuple[Shard, ...]
    samples_sha256: str
    """Of samples.csv, which names every sample."""
    broken: tuple[BrokenSample, ...]
    duplicates: tuple[Duplicate, ...]
    digest: str

    @property
    def dtype(self) -> type[np.generic]:
        """As stored: uint8 in 0..255 for images, float32 for the others."""
        return np.uint8 if self.kind == "images" else np.float32

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """As stored: (H, W, 3) for images and their noise, (2,) for points."""
        return (2,) if self.kind == "points" else (self.resolution, self.resolution, self.channels)

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
    """One line for a person: what the domain holds and what was left out."""
    left_out = [
        f"{len(manifest.broken)} broken" if manifest.broken else "",
        f"{len(manifest.duplicates)} duplicate" if manifest.duplicates else "",
    ]
    tail = f"; left out: {', '.join(text for text in left_out if text)}" if any(left_out) else ""
    shape = "x".join(str(side) for side in manifest.sample_shape)
    return (
        f"{manifest.domain}: {manifest.counts['train']} train and {manifest.counts['test']} test samples of "
        f"{shape}, digest {manifest.digest[:12]}{tail}"
    )
