"""A generator with what it knows of its samples, and how it translates points."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from rdmd.data.readers.images import Form
from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.networks.codec import Codec
from rdmd.networks.unet import DownConv, UNetBlock
from rdmd.networks.unet2d import UNet2D
from rdmd.pipeline.model_folder import load_generator
from rdmd.serving.watch import Watch

BATCH = 64
POINTS_BATCH = 65_536


@dataclass(frozen=True)
class Model:
    """A generator, the shape of a sample ((C, R, R) or (d,)), and how training images were made square.

    `white` is what is white in grey images of 16 bits; None is 65535. `lam` is the lambda at which a generator that
    takes lambda translates; None is its own default. `watch` notes the images that are translated.
    """

    generator: nn.Module
    sample_shape: tuple[int, ...]
    fit: Literal["crop", "pad"]
    device: torch.device
    lam: float | None = None
    white: int | None = None
    watch: Watch | None = None

    def at(self, lam: float | None) -> "Model":
        """This model at another lambda; at its own for None. Raises UserError if it does not translate at `lam`."""
        if lam is None:
            return self
        own, lambdas = getattr(self.generator, "lam", None), getattr(self.generator, "lambdas", None)
        if lambdas is None and lam != own:
            raise UserError(f"lambda {lam:g} was asked for, but this generator was trained at lambda {own:g} alone.")
        if lambdas is not None and lam not in lambdas:
            raise UserError(f"lambda {lam:g} was asked for, but this generator takes lambda from {lambdas}.")
        return replace(self, lam=lam)

    @property
    def form(self) -> Form:
        """How images are read for this model."""
        return Form(3 if self.sample_shape[0] == 3 else 1, self.white)

    @property
    def of_points(self) -> bool:
        """Whether it moves points and not images."""
        return len(self.sample_shape) == 1

    @property
    def codec(self) -> Codec | None:
        """The generator's codec, if it works on latents."""
        return self.generator.codec if isinstance(self.generator, Generator) else None

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this: its U-Net, and its codec if it has one, halve them so often."""
        factor = 1 if self.codec is None else self.codec.factor
        of_diffusers = next((module for module in self.generator.modules() if isinstance(module, UNet2D)), None)
        if of_diffusers is not None:
            return factor * of_diffusers.multiple
        blocks = (module for module in self.generator.modules() if isinstance(module, UNetBlock))
        return factor * 2 ** sum(isinstance(block.conv0, DownConv) for block in blocks)


def open_folder(folder: Path, device: torch.device) -> Model:
    """The model of a generator's folder. Raises UserError if there is none, or if it makes samples of noise."""
    card, generator = load_generator(folder, device)
    if card.source_noise is not None:
        raise UserError(
            f"{folder} makes samples of noise and does not translate; give a generator of an experiment "
            "whose source is not noise."
        )
    return Model(generator, card.outer_shape, card.fit, device, white=card.white)


@torch.no_grad()
def translate_points(model: Model, points: np.ndarray) -> np.ndarray:
    """Translate float32 (N, d) points to float32 (N, d)."""
    batches = torch.from_numpy(points).split(POINTS_BATCH)
    return torch.cat([model.generator(batch.to(model.device), model.lam).cpu() for batch in batches]).numpy()
