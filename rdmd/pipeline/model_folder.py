"""Load the models of inference from their folders: the denoiser and the one-step generator.

A registered model carries a copy of this file, so it does not import the baselines' networks.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from rdmd import config
from rdmd.diffusion.preconditioning import Preconditioned
from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.networks.codec import Codec, load_codec
from rdmd.pipeline.model_card import ModelCard, read_card, weights_of

Built = TypeVar("Built", bound=nn.Module)


def load_denoiser(
    folder: Path, device: torch.device, card: ModelCard | None = None
) -> tuple[ModelCard, Preconditioned]:
    """The denoiser of a model folder, in inference form. Raises UserError if the weights are not those of the card.

    `card` is read from the folder, except for a folder below runs/, which has none.
    """
    card = card or read_card(folder)
    return load_module(folder, partial(build_denoiser, lambdas=card.lambdas), device, card)


def load_generator(folder: Path, device: torch.device, card: ModelCard | None = None) -> tuple[ModelCard, Generator]:
    """A one-step generator, as `load_denoiser`. Raises UserError if the folder holds another kind of model."""
    card = card or read_card(folder)
    if card.kind != "generator" or card.sigma_init is None:
        raise UserError(
            f"{folder} holds a {card.kind} and not a generator; give a generator such as models/generators/lambda-0.1."
        )
    denoiser = load_denoiser(folder, device, card)[1]
    codec = codec_of(folder, device, card)
    return card, Generator(denoiser, card.sigma_init, card.input_noise, card.lambdas, card.lam, codec)


def codec_of(folder: Path, device: torch.device, card: ModelCard) -> Codec | None:
    """The codec of a model; None where it needs none. Raises UserError if it is not the one that the card names."""
    return None if card.codec is None else load_codec(folder, card.codec, device)


def load_module(
    folder: Path,
    build: Callable[[config.Network, tuple[int, ...]], Built],
    device: torch.device,
    card: ModelCard | None = None,
) -> tuple[ModelCard, Built]:
    """The network that `build` makes, filled with the weights of a model folder, as `load_denoiser`."""
    card = card or read_card(folder)
    weights = weights_of(folder, card)
    module = build(card.network, card.sample_shape)
    load_weights(module, weights)
    # Convolutions on a CPU are faster with channels last.
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return card, module.eval().requires_grad_(False).to(device).to(memory_format=layout)
