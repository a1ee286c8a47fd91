"""The memory-mapped array of a domain's split, and the batches that training draws from it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rdmd.data.manifest import Manifest, digest_of, read_manifest, write_manifest
from rdmd.data.sampling import StepRandom
from rdmd.data.shards import Entry, read_split, stored_array, write_shards
from rdmd.data.view import open_domain
from rdmd.errors import UserError

CPU = torch.device("cpu")
SIDE = 8
COUNT = 50


def write_domain(folder: Path, arrays: list[np.ndarray], labels: list[int | None]) -> Path:
    """Arrays as a domain, seven to a shard, of which every fifth is for testing."""
    folder.mkdir()
    entries = (
        Entry(name=f"{i}", split="test" if i % 5 == 0 else "train", array=array, scan=f"{i}", label=label)
        for i, (array, label) in enumerate(zip(arrays, labels, strict=True))
    )
    written = write_shards(folder, entries, samples_per_shard=7)
    points = arrays[0].ndim == 1
    kind = "points" if points else "images" if arrays[0].dtype == np.uint8 else "noise"
    write_manifest(folder, Manifest(
        domain=folder.name, kind=kind, resolution=None if points else SIDE, channels=None if points else 3, seed=0,
        reader={}, preprocess={}, counts=written.counts, label_counts=written.label_counts, shards=written.shards,
        samples_sha256=written.samples_sha256, broken=(), duplicates=(), digest=digest_of(written.shards),
    ))  # fmt: skip
    return folder


def images(seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8))


def points() -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(COUNT, 2)).astype(np.float32))


def noise() -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(COUNT, SIDE, SIDE, 3)).astype(np.float32))


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    return write_domain(tmp_path / "source", images(), [i % 3 for i in range(COUNT)])


def at(step: int, rank: int = 0) -> StepRandom:
    return StepRandom(seed=3, rank=rank, step=step, device=CPU)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("arrays", [images, points, noise], ids=lambda make: make.__name__)
def test_the_array_holds_every_sample_in_order(tmp_path: Path, arrays, labelled: bool, split: str):
    made = arrays()
    folder = write_domain(tmp_path / "domain", made, [i if labelled else None for i in range(COUNT)])
    wanted = [i for i in range(COUNT) if (i % 5 == 0) == (split == "test")]
    assert np.array_equal(stored_array(folder, split), np.stack([made[i] for i in wanted]))
    loaded = read_split(folder, split)
    assert (None if loaded.labels is None else loaded.labels.tolist()) == (wanted if labelled else None)
    assert np.array_equal(loaded.data[3].movedim(0, -1) if loaded.data.ndim == 4 else loaded.data[3], made[wanted[3]])


def test_a_batch_is_a_function_of_seed_rank_step_and_name(domain: Path):
    view = open_domain(domain, "train", CPU)
    images = read_split(domain, "train").data
    batch = view.batch(16, at(10**9), "source")
    index = torch.randint(40, (16,), generator=at(10**9).host_stream("source"))
    assert torch.equal(batch, images[index].float() / 127.5 - 1)
    # Convolutions round differently in another layout.
    assert batch.is_contiguous()
    assert torch.equal(open_domain(domain, "train", CPU).batch(16, at(10**9), "source"), batch)
    for other in (
        view.batch(16, at(10**9 + 1), "source"),
        view.batch(16, at(10**9, rank=1), "source"),
        view.batch(16, at(10**9), "source 1"),
    ):
        assert not torch.equal(other, batch)


def test_the_array_is_of_the_shards_that_lie_beside_it(domain: Path):
    before = stored_array(domain, "train").copy()
    assert [file.name for file in domain.glob("*.npy")] == [f"train-{read_manifest(domain).digest[:16]}.npy"]
    shutil.rmtree(domain)
    write_domain(domain, images(seed=1), [None] * COUNT)
    assert not np.array_equal(stored_array(domain, "train"), before)


def test_a_write_to_the_array_stays_in_the_process(domain: Path):
    stored_array(domain, "train")[:] = 0
    assert stored_array(domain, "train").any()


def test_a_shard_cut_short_is_named_also_when_the_array_is_there(domain: Path):
    stored_array(domain, "train")
    shard = domain / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-600])
    with pytest.raises(UserError, match=r"train-000001\.tar was changed or cut short.*rdmd preprocess source`"):
        open_domain(domain, "train", CPU)


def test_shards_of_other_shapes_than_the_manifest_says_are_refused(domain: Path):
    manifest = read_manifest(domain)
    write_manifest(domain, manifest.model_copy(update={"resolution": 2 * SIDE}))
    with pytest.raises(UserError, match=r"holds something else than its manifest says; .*rdmd preprocess source`"):
        stored_array(domain, "train")
    assert not list(domain.glob("*.npy")) and not list(domain.glob(".*"))
