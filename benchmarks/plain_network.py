"""The U-Net computed as in the public EDM code, for the plain loop.

The weights and the results are the same (a test compares them). The computation differs: the box filter of resampling
is a separate grouped convolution, also before a 1x1 convolution, and attention builds its matrix.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rdmd.networks.unet import SKIP_SCALE, AttentionBlock, DownConv, UNetBlock, UpConv


class _PlainDown(DownConv):
    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = functional.conv2d(x, self.resample_filter.tile(channels, 1, 1, 1), groups=channels, stride=2)
        return functional.conv2d(x, self.weight, self.bias, padding=self.padding)


class _PlainUp(UpConv):
    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = functional.conv_transpose2d(x, 4 * self.resample_filter.tile(channels, 1, 1, 1), groups=channels, stride=2)
        return functional.conv2d(x, self.weight, self.bias, padding=self.padding)


class _PlainBlock(UNetBlock):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(functional.silu(self.norm0(x))) + self.affine(emb)[:, :, None, None]
        h = functional.dropout(functional.silu(self.norm1(h)), self.dropout, self.training)
        return (self.conv1(h) + (x if self.skip is None else self.skip(x))) * SKIP_SCALE


class _PlainAttention(AttentionBlock):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = _PlainBlock.forward(self, x, emb)
        q, k, v = self.qkv(self.norm2(x)).reshape(len(x), x.shape[1], 3, -1).unbind(2)
        weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(x.shape[1])).softmax(dim=2)
        return (self.proj(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape)) + x) * SKIP_SCALE


_PLAIN = {DownConv: _PlainDown, UpConv: _PlainUp, UNetBlock: _PlainBlock, AttentionBlock: _PlainAttention}


def computed_plainly(network: nn.Module) -> nn.Module:
    """Make the parts of `network` compute as published code does. Returns `network`."""
    for part in network.modules():
        part.__class__ = _PLAIN.get(type(part), type(part))
    return network
