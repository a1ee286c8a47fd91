"""`model.json` describes a model and its training. This module does not import torch, so that flows start quickly."""

import shutil
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rdmd import config
from rdmd.data.likeness import SourceStatistics
from rdmd.errors import UserError
from rdmd.files import sha256_of, write_text
from rdmd.networks.diffusers_import import NETWORK, WEIGHTS, CodecFile
from rdmd.pipeline.layout import Layout

# The folder of a codec below that of its model.
CODEC = "codec"


class ModelCard(config.Section):
    """`model.json`: the architecture of a model, and its training run."""

    format: Literal[1] = 1
    kind: Literal["teacher", "generator", "domain-classifier", "transport-map", "cut-generator"]
    experiment: str
    network: config.Network
    # Of samples as the network sees them: latents, where there is a codec.
    sample_shape: tuple[int, ...]
    codec: CodecFile | None = None
    fit: Literal["crop", "pad"]
    # What is white in grey images of 16 bits; null is 65535.
    white: int | None = None
    # Generators only: the noise level at which G evaluates its denoiser, the noise added to its source, the range of
    # lambda where it is an input, and lambda: where it is an input, the value for callers that give none.
    sigma_init: float | None = None
    input_noise: config.InputNoise = 0.0
    lambdas: config.LambdaRange | None = None
    lam: float | None = None
    # DMD only: the generator maps samples of N(0, source_noise^2 I), and translates no images.
    source_noise: float | None = None
    # Transport maps of the neural OT baseline only: the weight of the cost in their training.
    cost_weight: float | None = None
    # The fingerprint of its training run, the time and device of the training, and the SHA-256 of the weights.
    run: str
    train_seconds: float
    trained_on: str
    sha256: str
    source_digest: str | None = None
    # Generators of images only: what the training source looks like.
    source: SourceStatistics | None = None
    target_digest: str

    @property
    def outer_shape(self) -> tuple[int, ...]:
        """The shape of what the model reads and writes: (3, R, R) of images, or (d,) of points."""
        if self.codec is None:
            return self.sample_shape
        side = self.sample_shape[-1] * self.codec.factor
        return 3, side, side


def write_model(folder: Path, card: ModelCard, weights: Path) -> None:
    """Write a model into `folder`: its card, its weights and, where it has one, its codec. `card.codec` may be relative
    to the folder of `weights`. Raises UserError if the weights are not those that the card names."""
    folder.mkdir(parents=True, exist_ok=True)
    if card.codec is not None:
        (folder / CODEC).mkdir()
        for name in (NETWORK, WEIGHTS):
            shutil.copyfile(weights.parent / card.codec.path / name, folder / CODEC / name)
        card = card.model_copy(update={"codec": card.codec.model_copy(update={"path": Path(CODEC)})})
    shutil.copyfile(weights, folder / "model.safetensors")
    if sha256_of(folder / "model.safetensors") != card.sha256:
        raise UserError(f"{weights} changed while it was copied; repeat the command.")
    write_text(folder / "model.json", card.model_dump_json(indent=2) + "\n")


def read_card(folder: Path) -> ModelCard:
    """The card of the model in `folder`. Raises UserError if there is none."""
    file = folder / "model.json"
    try:
        return ModelCard.model_validate_json(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{file} does not exist, so {folder} is not a model; train it with `dvc repro`, or give a "
            "folder such as models/generators/lambda-0.1."
        ) from None
    except (ValidationError, UnicodeDecodeError):
        raise UserError(
            f"{file} is not a model card that this version reads; take the model from its registry or train it again."
        ) from None


def generator_folder(layout: Layout, run: str | None) -> Path:
    """The folder below models/generators of the generator that the training `run` (a fingerprint) made.

    Raises UserError if there is none, so that the metrics are of another generator.
    """
    for file in sorted(layout.generators.glob("*/model.json")):
        if read_card(file.parent).run == run:
            return file.parent
    raise UserError(
        f"{layout.metrics} was measured on another generator than {layout.generators} holds; repeat `rdmd evaluate` or "
        "`dvc repro`."
    )


def weights_of(folder: Path, card: ModelCard) -> Path:
    """The weights beside `card`. Raises UserError if they are missing or are not those that it names."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights} is missing; take the model from its registry or train it again.")
    if sha256_of(weights) != card.sha256:
        raise UserError(
            f"{weights} is not the file that model.json beside it names (its SHA-256 differs); copy the "
            "model again or train it again."
        )
    return weights
