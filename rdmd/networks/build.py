"""Denoisers from settings, and their weights on disk (safetensors)."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from rdmd.config import DiffusersNetwork, ImageNetwork, LambdaRange, Network
from rdmd.diffusion.preconditioning import EDMPrecond, Preconditioned, VPPrecond
from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.networks.lambda_embedding import LambdaEmbedding
from rdmd.networks.mlp import PointMLP
from rdmd.networks.unet import DDPMPP
from rdmd.networks.unet2d import UNet2D


def build_denoiser(
    network: Network,
    sample_shape: tuple[int, ...],
    lambdas: LambdaRange | None = None,
    *,
    dropout: bool = False,
    augmented: bool = False,
) -> Preconditioned:
    """A fresh denoiser D(x, sigma) for samples of `sample_shape`: (C, R, R) for images, (d,) for points.

    With `lambdas` it is D(x, sigma, lambda), for lambda in that range.

    Dropout belongs to the teacher's training alone, which asks for it. A generator that trained with dropout would
    match a distribution that it does not have afterwards, and a fake with dropout would differ from an equal teacher.
    So do augmentation labels, which D takes with `augmented`; a network without them has the same state dict.

    Raises `UserError` if the width is odd: the noise embedding is half sines, half cosines.
    """
    drawn = lambdas.drawn if lambdas else None
    if isinstance(network, DiffusersNetwork):
        return _of_diffusers(network, drawn, dropout)
    if not isinstance(network, ImageNetwork):
        return EDMPrecond(PointMLP(sample_shape[0], network.width, network.depth, drawn), network.sigma_data)
    if network.model_channels % 2:
        raise UserError(f"`network.model_channels` is {network.model_channels}, which is odd; make it even.")
    channels, _, resolution = sample_shape
    unet = DDPMPP(
        img_resolution=resolution,
        in_channels=channels,
        out_channels=channels,
        model_channels=network.model_channels,
        channel_mult=network.channel_mult,
        num_blocks=network.num_blocks,
        attn_resolutions=network.attn_resolutions,
        dropout=network.dropout if dropout else 0.0,
        augment_dim=network.augment_dim,
        augmented=augmented,
        lambdas=drawn,
    )
    return EDMPrecond(unet, network.sigma_data)


def _of_diffusers(network: DiffusersNetwork, lambdas: tuple[float, float] | None, dropout: bool) -> Preconditioned:
    """The network of a checkpoint, with fresh weights, under the preconditioning of its scheduler."""
    from diffusers import DDPMScheduler

    F = UNet2D(network.unet, lambdas, dropout=dropout)
    if network.scheduler.get("_class_name") == "EDMEulerScheduler":
        return EDMPrecond(F, network.sigma_data)
    # DDIM has the noise levels and predictions of DDPM, and differs from it in how it samples.
    scheduler = DDPMScheduler.from_config(network.scheduler)
    return VPPrecond(F, scheduler.alphas_cumprod, scheduler.config.prediction_type)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a state dict as safetensors, whole or not at all; a shared tensor stands under each of its names."""
    state = module.state_dict()
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def load_weights(denoiser: nn.Module, path: Path, *, of_teacher: bool = False) -> None:
    """Fill `denoiser`, in place, with the tensors of a safetensors file of the same names and shapes.

    Weights `of_teacher` know nothing of lambda: the embedding of lambda keeps the weights that it has.

    Raises `UserError` naming the first tensor that is missing, unknown or of another shape, or if the file is damaged;
    `denoiser` is unchanged then.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; name a file of weights (safetensors).")
    wanted = denoiser.state_dict()
    if of_teacher:
        own = tuple(f"{name}." for name, part in denoiser.named_modules() if isinstance(part, LambdaEmbedding))
        wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(own)}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_fit({name: tuple(tensor.shape) for name, tensor in wanted.items()}, found, path)
            loaded = {name: file.get_tensor(name) for name in wanted}
    except SafetensorError:
        raise UserError(
            f"{path} is not a whole safetensors file; copy it again, or make one of a published EDM network "
            "with `rdmd convert-edm`."
        ) from None
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(loaded[name])


def _check_fit(wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], path: Path) -> None:
    remedy = "set `network` in params.yaml to what this file was trained with, or name another file"
    for name, shape in wanted.items():
        if name not in found:
            raise UserError(f"{path} has no tensor `{name}`, which the network needs; {remedy}.")
        if found[name] != shape:
            raise UserError(f"{path}: tensor `{name}` is {found[name]}, the network's is {shape}; {remedy}.")
    for name in found:
        if name not in wanted:
            raise UserError(f"{path} has a tensor `{name}` that the network does not know; {remedy}.")
