"""A generator with what it knows of its samples, and how it translates a batch of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from rdmd.data.transforms import fit, to_uint8, to_unit
from rdmd.errors import UserError
from rdmd.pipeline.model_folder import load_generator

BATCH = 64
POINTS_BATCH = 65_536


@dataclass(frozen=True)
class Model:
    """A generator, the shape of a sample ((3, R, R) or (d,)), and how an image is made square.

    `lam` is the lambda at which a generator that takes lambda translates; None is its own default.
    """

    generator: nn.Module
    sample_shape: tuple[int, ...]
    fit: Literal["crop", "pad"]
    device: torch.device
    lam: float | None = None

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
    def of_points(self) -> bool:
        """Whether it moves points and not images."""
        return len(self.sample_shape) == 1


def open_folder(folder: Path, device: torch.device) -> Model:
    """The model of a generator's folder. Raises UserError if there is none, or if it makes samples of noise."""
    card, generator = load_generator(folder, device)
    if card.source_noise is not None:
        raise UserError(
            f"{folder} makes samples of noise and does not translate; give a generator of an experiment "
            "whose source is not noise."
        )
    return Model(generator, card.sample_shape, card.fit, device)


@torch.no_grad()
def translate_images(model: Model, images: Iterable[np.ndarray]) -> np.ndarray:
    """Translate uint8 (H, W, 3) images of any sizes to uint8 (N, R, R, 3), R the model's resolution.

    Each is cropped or padded to a square and resized as in training, before the next is asked for.
    """
    side = model.sample_shape[-1]
    fitted = np.stack([fit(image, side, model.fit) for image in images])
    translated = []
    for batch in torch.from_numpy(fitted).permute(0, 3, 1, 2).split(BATCH):
        translated.append(to_uint8(model.generator(to_unit(batch.to(model.device)), model.lam)).cpu())
    return torch.cat(translated).permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def translate_points(model: Model, points: np.ndarray) -> np.ndarray:
    """Translate float32 (N, d) points to float32 (N, d)."""
    batches = torch.from_numpy(points).split(POINTS_BATCH)
    return torch.cat([model.generator(batch.to(model.device), model.lam).cpu() for batch in batches]).numpy()
