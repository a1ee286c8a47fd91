"""Shards: written byte for byte the same, read back as they were, and never read when damaged."""

import itertools
import resource
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from rdmd import config
from rdmd.config import Domains, Points, Preprocess, Settings
from rdmd.data.manifest import read_manifest
from rdmd.data.preprocess import preprocess
from rdmd.data.shards import read_rows, read_split
from rdmd.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def digits() -> Settings:
    """A few hundred 2s and 3s in small shards."""
    settings = config.load(ROOT / "experiments" / "digits.yaml")
    source = settings.domains.source.model_copy(update={"train_copies": 2, "test_copies": 3, "limit": 60})
    return settings.model_copy(
        update={
            "domains": settings.domains.model_copy(update={"source": source}),
            "preprocess": settings.preprocess.model_copy(update={"samples_per_shard": 20}),
        }
    )


@pytest.fixture
def plane(digits: Settings) -> Settings:
    law = Points(reader="points", path="p", law="gaussian", train=50, test=30)
    domains = Domains(source=law, target=law)
    return digits.model_copy(update={"domains": domains, "preprocess": Preprocess(kind="points", samples_per_shard=16)})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_runs_write_the_same_bytes(tmp_path, digits):
    preprocess(digits, "source", tmp_path / "a")
    preprocess(digits, "source", tmp_path / "b")
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert {"manifest.json", "samples.csv", "train-000000.tar", "test-000000.tar"} <= set(first)


def test_another_seed_gives_another_digest(tmp_path, digits):
    one = preprocess(digits, "source", tmp_path / "a")
    two = preprocess(digits.model_copy(update={"seed": 1}), "source", tmp_path / "b")
    assert one.digest != two.digest


def test_what_is_read_is_what_was_made(tmp_path, digits):
    from sklearn.datasets import load_digits

    from rdmd.data.transforms import colour

    manifest = preprocess(digits, "source", tmp_path / "source")
    images = load_digits().images
    for split in ("train", "test"):
        loaded = read_split(tmp_path / "source", split)
        assert loaded.data.shape == (manifest.counts[split], 3, 8, 8) and loaded.data.dtype == torch.uint8
        assert loaded.labels.tolist() == [2] * len(loaded.data)
        assert loaded.scans == tuple(row.scan for row in loaded.rows)
        for image, row in zip(loaded.data, loaded.rows, strict=True):
            grey = np.rint(images[int(row.name[7:-1])] * 255 / 16).astype(np.uint8)
            expected = colour(np.repeat(grey[..., None], 3, axis=2), float(row.hue))
            assert np.array_equal(image.permute(1, 2, 0), expected)


def test_the_manifest_accounts_for_every_sample(tmp_path, digits):
    manifest = preprocess(digits, "source", tmp_path / "source")
    for shard in manifest.shards:
        with tarfile.open(tmp_path / "source" / shard.file) as file:
            names = file.getnames()
        assert len([name for name in names if name.endswith(".npy")]) == shard.samples <= 20
        assert len([name for name in names if name.endswith(".cls")]) == shard.samples
    for split in ("train", "test"):
        assert sum(shard.samples for shard in manifest.of(split)) == manifest.counts[split]
        assert manifest.label_counts[split] == {"2": manifest.counts[split]}
        # A shard is begun only when the one before is full.
        assert all(shard.samples == 20 for shard in manifest.of(split)[:-1])
    scans = len({row.scan for row in read_rows(tmp_path / "source", manifest)})
    train, test = manifest.counts["train"], manifest.counts["test"]
    assert scans == 60 and train % 2 == 0 and test % 3 == 0 and train // 2 + test // 3 == 60
    assert read_manifest(tmp_path / "source") == manifest


def test_points_come_back_exactly(tmp_path, plane):
    preprocess(plane, "source", tmp_path / "source")
    loaded = read_split(tmp_path / "source", "test")
    from rdmd.data.readers.points import read

    drawn = [item.array for item in read(plane.domains.source, "source", plane.seed).items if item.split == "test"]
    assert torch.equal(loaded.data, torch.from_numpy(np.stack(drawn))) and loaded.labels is None


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "gone":
            path.unlink()
        case "short":
            path.write_bytes(content[:-600])
        case "altered":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize(
    ("file", "how"),
    list(itertools.product(["train-000001.tar", "samples.csv"], ["gone", "short", "altered"])),
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, digits, file, how):
    preprocess(digits, "source", tmp_path / "source")
    damage(tmp_path / "source" / file, how)
    with pytest.raises(UserError, match=rf"{file} (is missing|was changed).*rdmd preprocess source`"):
        assert read_split(tmp_path / "source", "train").rows


def test_a_missing_or_foreign_manifest_is_named(tmp_path, digits):
    with pytest.raises(UserError, match=r"source/manifest\.json does not exist; .*rdmd preprocess source"):
        read_split(tmp_path / "source", "train")
    preprocess(digits, "source", tmp_path / "source")
    (tmp_path / "source/manifest.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match=r"manifest\.json is damaged or of another version"):
        read_manifest(tmp_path / "source")


def test_an_empty_split_is_explained(tmp_path, digits):
    source = digits.domains.source.model_copy(update={"limit": 1})
    settings = digits.model_copy(update={"domains": digits.domains.model_copy(update={"source": source})})
    manifest = preprocess(settings, "source", tmp_path / "source")
    empty = min(manifest.counts, key=manifest.counts.get)
    with pytest.raises(UserError, match=f"has no {empty} samples"):
        read_split(tmp_path / "source", empty)


@pytest.mark.parametrize("name", ["50% {0..3} a#b?c", "pipe:x::y"])
def test_a_folder_may_be_called_anything(tmp_path, digits, name):
    preprocess(digits, "source", tmp_path / name / "source")
    assert len(read_split(tmp_path / name / "source", "train").data) > 0


@contextmanager
def no_large_files() -> Iterator[None]:
    """While it lasts, the system refuses to let a file grow past 20 kB, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_leaves_the_old_shards_and_nothing_else(tmp_path, plane):
    preprocess(plane, "source", tmp_path / "source")
    before = contents(tmp_path / "source")
    more = plane.model_copy(update={"preprocess": Preprocess(kind="points", samples_per_shard=50)})
    with no_large_files(), pytest.raises(OSError, match="File too large"):
        preprocess(more, "source", tmp_path / "source")
    assert contents(tmp_path / "source") == before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
