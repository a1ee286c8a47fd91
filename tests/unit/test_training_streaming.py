"""A domain read as it is needed gives what a resident one gives, bit for bit, and begins anywhere at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from rdmd.domains.manifest import Manifest, digest_of, read_manifest, write_manifest
from rdmd.domains.random_access import StoredSamples
from rdmd.domains.shards import Entry, read_split, write_shards
from rdmd.errors import UserError
from rdmd.training import data, memory
from rdmd.training.data import ResidentDomain, open_domain, stored_bytes
from rdmd.training.random import StepRandom
from rdmd.training.streaming import AHEAD, StreamedDomain

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


def pictures(seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8))


def points() -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(COUNT, 2)).astype(np.float32))


def noise() -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(COUNT, SIDE, SIDE, 3)).astype(np.float32))


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    return write_domain(tmp_path / "source", pictures(), [i % 3 for i in range(COUNT)])


def at(step: int, rank: int = 0) -> StepRandom:
    return StepRandom(seed=3, rank=rank, step=step, device=CPU)


def read(domain: Path, index: list[int]) -> np.ndarray:
    stored = StoredSamples.open(domain, "train")
    out = np.empty((len(index), *stored.shape), stored.dtype)
    stored.read(np.array(index), out)
    return out


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("arrays", [pictures, points, noise], ids=lambda make: make.__name__)
def test_every_sample_is_found_by_its_index(tmp_path: Path, arrays, labelled: bool, split: str):
    # Labels of one and of two digits, in rows of one length all the same.
    labels = [i if labelled else None for i in range(COUNT)]
    folder = write_domain(tmp_path / "domain", arrays(), labels)
    stored, whole = StoredSamples.open(folder, split), read_split(folder, split).data
    out = np.empty((len(stored), *stored.shape), stored.dtype)
    stored.read(np.arange(len(stored)), out)
    found = torch.from_numpy(out)
    assert torch.equal(found.permute(0, 3, 1, 2) if found.ndim == 4 else found, whole)


@pytest.mark.parametrize("arrays", [pictures, points], ids=lambda make: make.__name__)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_streamed_batches_are_the_resident_ones_bit_for_bit(tmp_path: Path, arrays, workers: int):
    folder = write_domain(tmp_path / "domain", arrays(), [None] * COUNT)
    resident, streamed = ResidentDomain.load(folder, "train", CPU), StreamedDomain.open(folder, "train", CPU, workers)
    assert len(resident) == len(streamed) == 40
    for step in range(3 * AHEAD):
        for name in ("source", "source 1"):
            ours, theirs = (one.batch(16, at(step), name) for one in (streamed, resident))
            assert torch.equal(ours, theirs)
            # Convolutions round differently in another layout.
            assert ours.stride() == theirs.stride()


def test_a_resumed_run_goes_on_with_the_batches_of_an_uninterrupted_one(domain: Path):
    whole = [StreamedDomain.open(domain, "train", CPU)]
    uninterrupted = [whole[0].batch(8, at(step), "source") for step in range(20)]
    resumed = StreamedDomain.open(domain, "train", CPU)
    for step in (13, 14, 15, 16, 17, 18, 19):
        assert torch.equal(resumed.batch(8, at(step), "source"), uninterrupted[step])


def test_a_far_step_costs_no_more_reading_than_the_first(domain: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    true_read = StoredSamples.read
    monkeypatch.setattr(
        StoredSamples, "read", lambda self, index, out: (asked.append(len(index)), true_read(self, index, out))[1]
    )
    StreamedDomain.open(domain, "train", CPU).batch(8, at(10**9), "source")
    assert asked == [8]


def test_ranks_steps_and_names_draw_batches_of_their_own(domain: Path):
    streamed = StreamedDomain.open(domain, "train", CPU)
    others = [(at(5, rank=1), "source"), (at(6), "source"), (at(5), "source 1")]
    first = streamed.batch(16, at(5), "source")
    assert not any(torch.equal(first, streamed.batch(16, random, name)) for random, name in others)


def test_batches_are_read_before_they_are_asked_for(domain: Path, monkeypatch: pytest.MonkeyPatch):
    streamed = StreamedDomain.open(domain, "train", CPU)
    for step in (0, 1):
        streamed.batch(8, at(step), "source")
    waiting = [reading.result() for reading in streamed._reading.values()]
    assert len(waiting) == AHEAD
    # All that follows is in memory: the files are needed no more.
    monkeypatch.setattr(StoredSamples, "read", lambda *_: pytest.fail("read too late"))
    monkeypatch.setattr(streamed._workers, "submit", lambda *_: None)
    resident = ResidentDomain.load(domain, "train", CPU)
    for step in range(2, 2 + AHEAD):
        assert torch.equal(streamed.batch(8, at(step), "source"), resident.batch(8, at(step), "source"))


def test_what_is_asked_for_once_is_not_read_ahead(domain: Path):
    streamed = StreamedDomain.open(domain, "train", CPU)
    for _ in range(3):
        streamed.batch(8, at(0), "preview")
    assert not streamed._reading


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_shard_is_named_before_anything_is_read(domain: Path, damage: str):
    shard = domain / "train-000003.tar"
    if damage == "cut":
        os.truncate(shard, shard.stat().st_size // 2)
    else:
        shard.unlink()
    with pytest.raises(UserError, match=r"train-000003\.tar .*; make it again with `rdmd preprocess source`"):
        StreamedDomain.open(domain, "train", CPU)


def test_a_shard_that_is_cut_short_under_way_is_named(domain: Path):
    stored = StoredSamples.open(domain, "train")
    os.truncate(domain / "train-000002.tar", 1000)
    out = np.empty((40, *stored.shape), stored.dtype)
    stored.read(np.arange(14), out[:14])
    with pytest.raises(UserError, match=r"train-000002\.tar was changed or cut short"):
        stored.read(np.arange(21), out[:21])


def test_a_sample_that_is_another_one_is_refused(domain: Path):
    first, second = domain / "train-000000.tar", domain / "train-000001.tar"
    assert first.stat().st_size == second.stat().st_size
    second.write_bytes(first.read_bytes())
    assert read(domain, [3, 0]).shape == (2, SIDE, SIDE, 3)
    with pytest.raises(UserError, match=r"train-000001\.tar was changed"):
        read(domain, [3, 8])


@pytest.mark.parametrize(("free", "kept"), [(4.0, ResidentDomain), (3.9, StreamedDomain)])
def test_what_takes_over_a_quarter_of_the_free_memory_is_streamed(
    domain: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, free: float, kept: type
):
    size = stored_bytes(domain, "train")
    assert size == 40 * SIDE * SIDE * 3
    monkeypatch.setattr(data, "free_memory", lambda device: int(free * size))
    assert isinstance(open_domain(domain, "train", Accelerator(cpu=True), "auto"), kept)
    assert ("read from disk" in capfd.readouterr().err) == (kept is StreamedDomain)


def test_free_memory_is_no_more_than_the_container_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    without = memory.free_memory(CPU)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 600000\nfile 300000\n")
    assert memory.free_memory(CPU) == pytest.approx(without, rel=0.5)  # others use this machine meanwhile
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory.free_memory(CPU) == 400_000  # the cache of files gives way


def test_a_setting_decides_where_one_does(domain: Path):
    assert isinstance(open_domain(domain, "train", Accelerator(cpu=True), "streamed"), StreamedDomain)
    assert isinstance(open_domain(domain, "train", Accelerator(cpu=True), "resident"), ResidentDomain)


def test_more_shards_than_files_may_be_open(tmp_path: Path):
    # In a process of its own, whose limit it is.
    folder = write_domain(tmp_path / "domain", pictures() * 12, [None] * (12 * COUNT))
    assert len(read_manifest(folder).of("train")) > 64
    script = (
        "import resource; from pathlib import Path; from rdmd.domains.random_access import StoredSamples\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        f"print(len(StoredSamples.open(Path({str(folder)!r}), 'train')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "480"
