"""Encoders F(x, c_noise) for the baselines' scalar networks: the domain classifier and the transport potential."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from rdmd.config import ImageNetwork, Network, PointNetwork
from rdmd.networks.mlp import FREQUENCIES
from rdmd.networks.unet import Conv, DownConv, Linear, UNetBlock, sinusoidal


class ImageEncoder(nn.Module):
    """One residual block per level of the U-Net, half the side at each further level. No attention, no dropout."""

    def __init__(self, in_channels: int, model_channels: int, channel_mult: list[int]) -> None:
        super().__init__()
        self.model_channels = model_channels
        emb_channels = 2 * model_channels
        self.map_layer = Linear(model_channels, emb_channels)
        self.conv_in = Conv(in_channels, model_channels, 3)
        widths = [model_channels * mult for mult in channel_mult]
        blocks = [UNetBlock(model_channels, widths[0], emb_channels, 0.0)]
        for c_in, c_out in itertools.pairwise(widths):
            blocks += [UNetBlock(c_in, c_out, emb_channels, 0.0, DownConv), UNetBlock(c_out, c_out, emb_channels, 0.0)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(B, C, R, R) and (B,) -> (B, C', R', R') with R' = R / 2^(levels - 1)."""
        emb = silu(self.map_layer(sinusoidal(c_noise, self.model_channels).to(x.dtype)))
        h = self.conv_in(x)
        for block in self.blocks:
            h = block(h, emb)
        return silu(h)


class PointEncoder(nn.Module):
    """`depth` hidden layers of `width` with SiLU, on x and sines and cosines of c_noise, as in `PointMLP`."""

    frequencies: Tensor

    def __init__(self, dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.tensor(FREQUENCIES), persistent=False)
        widths = [dim + 2 * len(FREQUENCIES)] + [width] * depth
        layers = [layer for c_in, c_out in itertools.pairwise(widths) for layer in (nn.Linear(c_in, c_out), nn.SiLU())]
        self.hidden = nn.Sequential(*layers)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(B, dim) and (B,) -> (B, width)."""
        angles = torch.outer(c_noise, self.frequencies)
        return self.hidden(torch.cat([x, angles.sin().to(x.dtype), angles.cos().to(x.dtype)], dim=1))


def build_encoder(network: Network, sample_shape: tuple[int, ...]) -> nn.Module:
    """An encoder of about the denoiser's width for samples (C, R, R) or (d,). `model_channels` is even."""
    if isinstance(network, ImageNetwork):
        return ImageEncoder(sample_shape[0], network.model_channels, network.channel_mult)
    assert isinstance(network, PointNetwork), "settings allow no such baseline for another network"
    return PointEncoder(sample_shape[0], network.width, network.depth)


def encoded_shape(network: Network, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one encoded sample: (C', R', R') or (width,)."""
    if isinstance(network, ImageNetwork):
        side = sample_shape[1] >> (len(network.channel_mult) - 1)
        return (network.model_channels * network.channel_mult[-1], side, side)
    assert isinstance(network, PointNetwork), "settings allow no such baseline for another network"
    return (network.width,)
