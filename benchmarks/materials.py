"""Inputs of the benchmarks: a domain of random images on disk, and a distillation run with random weights.

The speed does not depend on the values.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from rdmd import config
from rdmd.data.manifest import Manifest, digest_of, write_manifest
from rdmd.data.shards import Entry, write_shards
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.training.run_config import DistillRun, Shards, Weights

SAMPLES_PER_SHARD = 1024

# The published EDM network for 64x64 images, for GPUs; and a small one that two cores can train.
LARGE_64 = config.ImageNetwork(
    kind="ddpmpp", model_channels=128, channel_mult=[1, 2, 2, 2], num_blocks=4, attn_resolutions=[16]
)
SMALL_64 = config.ImageNetwork(
    kind="ddpmpp", model_channels=32, channel_mult=[1, 2, 2, 2], num_blocks=1, attn_resolutions=[16]
)


def write_images(folder: Path, count: int, side: int) -> Shards:
    """A domain of `count` random training images (side, side, 3)."""
    folder.mkdir(parents=True)
    written = write_shards(folder, _entries(count, side), SAMPLES_PER_SHARD)
    manifest = Manifest(
        domain=folder.name, kind="images", resolution=side, channels=3, seed=0, reader={}, preprocess={},
        counts=written.counts, label_counts=written.label_counts, shards=written.shards,
        samples_sha256=written.samples_sha256, broken=(), duplicates=(), digest=digest_of(written.shards),
    )  # fmt: skip
    write_manifest(folder, manifest)
    return Shards(path=folder, digest=manifest.digest)


def _entries(count: int, side: int) -> Iterator[Entry]:
    rng = np.random.default_rng(0)
    for i in range(count):
        array = rng.integers(0, 256, (side, side, 3), np.uint8)
        yield Entry(name=str(i), split="train", array=array, scan=str(i))


def distill_run(
    folder: Path, network: config.Network, shards: Shards, side: int, batch: int, channels: int = 3, **changes: object
) -> DistillRun:
    """A distillation of a teacher with random weights, which are written to `folder`.

    changes: fields of the run, or else of its settings."""
    shape = (channels, side, side)
    torch.manual_seed(0)
    weights = folder / "teacher.safetensors"
    save_weights(build_denoiser(network, shape), weights)
    settings = {"lambdas": [0.1], "steps": 10**9, "batch": batch}
    run: dict[str, object] = {"precision": "float32", "processes": 1}
    for key, value in changes.items():
        (run if key in DistillRun.model_fields else settings)[key] = value
    return DistillRun(
        experiment="benchmark", seed=0, sample_shape=shape, network=network, target=shards, source=shards,
        teacher=Weights(path=weights, sha256=sha256_of(weights)), lam=0.1,
        settings=config.Distill.model_validate(settings), **run,
    )  # fmt: skip


def accelerator_for(run: DistillRun, device: torch.device) -> Accelerator:
    """The accelerator of a training process of `run` on `device`."""
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if run.precision == "bf16" else "no")
