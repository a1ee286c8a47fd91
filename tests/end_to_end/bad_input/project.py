"""A small project in which every stage has run: real files throughout, random weights in place of trained ones."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.data.preprocess import preprocess
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.features import train_features
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, write_model

PARAMS = """\
experiment: tiny
seed: 0

domains:
  source:
    reader: images
    path: data/raw/source
  target:
    reader: images
    path: data/raw/target

preprocess:
  kind: images
  resolution: 8
  test_fraction: 0.3
  max_broken_fraction: 0.05
  samples_per_shard: 8

validation:
  min_train: 5
  min_test: 2

network:
  kind: ddpmpp
  model_channels: 8
  channel_mult: [1, 2]
  num_blocks: 1
  attn_resolutions: []

teacher:
  init: null
  steps: 4
  batch: 4
  lr: 0.001
  log_every: 1

distill:
  lambdas: [0.1]
  steps: 2
  batch: 4

baselines:
  sdedit: {sigmas: [1.0], steps: 2}

evaluate:
  features: {network: classifier, dim: 8, steps: 2, batch: 8}
  n_source: 4
  n_reference: 4
  bootstrap: 0

register:
  champion: manual

launch:
  threads: 1
"""
IMAGES = 24
POINTS_MODEL = "models/points"


def build(root: Path) -> None:
    """Make the project in the empty folder `root`, which must be the current one."""
    layout = Layout()
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").touch()
    (root / "experiments").mkdir()
    (root / ".git").mkdir()
    (root / "experiments" / "other.yaml").write_text(f"# Another one.\n{PARAMS}")
    for name, first in (("source", 0), ("target", 100)):
        for i in range(IMAGES):
            save_image(root / "data" / "raw" / name / f"{i:02d}.png", noise(first + i))
    settings = config.load()
    for name in ("source", "target"):
        preprocess(settings, name, layout.shards / name)
    train_features(settings, layout)
    save_model(layout.teacher, "teacher", settings.network, settings.sample_shape)
    save_model(layout.generators / "lambda-0.1", "generator", settings.network, settings.sample_shape)
    save_model(Path(POINTS_MODEL), "generator", config.PointNetwork(kind="mlp", width=8, depth=1), (2,))


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    """An image like no other seed's, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save_image(path: Path, pixels: np.ndarray) -> None:
    """Write an image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_model(folder: Path, kind: str, network: config.Network, sample_shape: tuple[int, ...]) -> None:
    """A model with random weights."""
    torch.manual_seed(0)
    weights = folder.with_suffix(".safetensors")
    save_weights(build_denoiser(network, sample_shape), weights)
    shards = Layout().shards
    card = ModelCard(
        kind=kind,
        experiment="tiny",
        network=network,
        sample_shape=sample_shape,
        fit="crop",
        sigma_init=1.0 if kind == "generator" else None,
        lam=0.1 if kind == "generator" else None,
        run="0123456789abcdef",
        train_seconds=1.0,
        trained_on="CPU",
        sha256=sha256_of(weights),
        source_digest=read_manifest(shards / "source").digest if kind == "generator" else None,
        target_digest=read_manifest(shards / "target").digest,
    )
    write_model(folder, card, weights)
    weights.unlink()
