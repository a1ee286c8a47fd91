"""The DDPM++ U-Net and its blocks (Karras et al. 2022, appendix F, after Song et al. 2021).

Modules and tensors have the names and shapes of the published EDM checkpoints, so that these load unchanged.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rdmd.networks.lambda_embedding import LambdaEmbedding

NORM_EPS = 1e-6
# The factor of every residual sum, which keeps its variance at one.
SKIP_SCALE = math.sqrt(0.5)
# Gains of the initialisation: the end of a residual branch starts near zero, the input of attention is small.
NEAR_ZERO = 1e-5
ATTENTION_GAIN = math.sqrt(0.2)


def sinusoidal(c_noise: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of `c_noise` at `channels / 2` frequencies `10000^(-k / (K - 1))`.

    `c_noise` is (B,); the result is (B, channels) in float32. `channels` is even and at least 4.
    """
    half = channels // 2
    k = torch.arange(half, device=c_noise.device, dtype=torch.float32)
    frequencies = (1 / 10_000) ** (k / (half - 1))
    angles = torch.outer(c_noise.float(), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of at least four channels a group and at most 32 groups.

    EDM takes `min(32, channels // 4)` groups, which must divide `channels`. The largest divisor up to that number
    is the same for those widths, and exists for all.
    """
    groups = max(n for n in range(1, max(1, min(32, channels // 4)) + 1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, eps=NORM_EPS)


class Conv(nn.Conv2d):
    """A convolution that keeps height and width; `kernel` is 1 or 3."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, gain: float = 1.0) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        xavier(self, gain)


class _ResamplingConv(Conv):
    """A convolution with EDM's [1, 1] box filter, which is a mean or a repeat of pixels; the buffer is EDM's alone."""

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, gain: float = 1.0) -> None:
        super().__init__(in_channels, out_channels, kernel, gain)
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))


class DownConv(_ResamplingConv):
    """Halve height and width by 2x2 means, then convolve."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.avg_pool2d(x, 2))


class UpConv(_ResamplingConv):
    """Double height and width by repeating every pixel, then convolve."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            # A 1x1 convolution and a repeat commute: the same numbers for a quarter of the work.
            return functional.interpolate(super().forward(x), scale_factor=2, mode="nearest")
        return super().forward(functional.interpolate(x, scale_factor=2, mode="nearest"))


class Linear(nn.Linear):
    """A linear layer with Xavier-uniform weights and zero biases."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        xavier(self)


class UNetBlock(nn.Module):
    """Norm, SiLU, `conv0`, add the noise embedding, norm, SiLU, dropout, `conv1`, add the skip.

    `conv` decides the resolution: `Conv` keeps it, `DownConv` halves it, `UpConv` doubles it. The skip is a 1x1
    convolution where the width or the resolution changes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, emb_channels: int, dropout: float, conv: type[Conv] = Conv
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.dropout = dropout
        self.norm0 = group_norm(in_channels)
        self.conv0 = conv(in_channels, out_channels, 3)
        self.affine = Linear(emb_channels, out_channels)
        self.norm1 = group_norm(out_channels)
        self.conv1 = Conv(out_channels, out_channels, 3, gain=NEAR_ZERO)
        changes = conv is not Conv or in_channels != out_channels
        self.skip = conv(in_channels, out_channels, 1) if changes else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, emb_channels) give (B, out_channels, H', W')."""
        # In-place sums: no gradient needs the convolutions' outputs, and memory is read less often.
        h = self.conv0(functional.silu(self.norm0(x))).add_(self.affine(emb)[:, :, None, None])
        h = functional.silu(self.norm1(h))
        if self.dropout > 0:
            h = functional.dropout(h, self.dropout, self.training)
        skip = x if self.skip is None else self.skip(x)
        return self.conv1(h).add_(skip).mul_(SKIP_SCALE)


class AttentionBlock(UNetBlock):
    """A residual block, then self-attention over all pixels, with one head and a residual sum of its own."""

    def __init__(self, in_channels: int, out_channels: int, emb_channels: int, dropout: float) -> None:
        super().__init__(in_channels, out_channels, emb_channels, dropout)
        self.norm2 = group_norm(out_channels)
        self.qkv = Conv(out_channels, 3 * out_channels, 1, gain=ATTENTION_GAIN)
        self.proj = Conv(out_channels, out_channels, 1, gain=NEAR_ZERO)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = super().forward(x, emb)
        batch, channels, height, width = x.shape
        # Checkpoints interleave q, k and v by channel; the fused kernels need them separate.
        qkv = self.qkv(self.norm2(x)).reshape(batch, channels, 3, height * width)
        q, k, v = qkv.permute(2, 0, 3, 1).contiguous().unsqueeze(2)
        h = functional.scaled_dot_product_attention(q, k, v)
        h = h.transpose(2, 3).reshape(batch, channels, height, width)
        return self.proj(h).add_(x).mul_(SKIP_SCALE)


def xavier(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Xavier-uniform weights times `gain`, and zero biases."""
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


EMBEDDING_MULT = 4


class DDPMPP(nn.Module):
    """F(x, c_noise), without classes.

    Level `l` of the U-Net has resolution `img_resolution / 2^l` and `channel_mult[l] * model_channels`
    channels. An encoder level has `num_blocks` residual blocks, a decoder level one more. Attention runs
    in the encoder at `attn_resolutions`, in the last decoder block of these, and between encoder and
    decoder.

    `img_resolution` must be a multiple of `2^(len(channel_mult) - 1)` and `model_channels` even.
    `augment_dim` adds the published networks' weight for augmentation labels, which `augmented` trains: F(x, c_noise,
    None, labels) adds their embedding to the sinusoidal one, and labels of 0 add nothing. With `lambdas`, the ends of a
    range, F(x, c_noise, lambda) adds lambda's embedding to the noise embedding.
    """

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int = 3,
        out_channels: int = 3,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        augment_dim: int = 0,
        augmented: bool = False,
        lambdas: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        emb_channels = EMBEDDING_MULT * model_channels
        widths = [model_channels * mult for mult in channel_mult]
        resolutions = [img_resolution >> level for level in range(len(widths))]
        self.model_channels = model_channels
        self.dropout = dropout
        self.recompute_from: int | None = None
        if augment_dim > 0:
            kind = _AugmentationMap if augmented else UnusedWeight
            self.map_augment = kind(model_channels, augment_dim)
        self.map_layer0 = Linear(model_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)
        self.embed_lambda = LambdaEmbedding(emb_channels, *lambdas) if lambdas else None

        def block(c_in: int, c_out: int, attention: bool) -> UNetBlock:
            return (AttentionBlock if attention else UNetBlock)(c_in, c_out, emb_channels, dropout)

        self.enc = nn.ModuleDict()
        skips = []
        width = model_channels
        for level, (res, level_width) in enumerate(zip(resolutions, widths, strict=True)):
            if level == 0:
                self.enc[f"{res}x{res}_conv"] = Conv(in_channels, width, 3)
            else:
                self.enc[f"{res}x{res}_down"] = UNetBlock(width, width, emb_channels, dropout, DownConv)
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{res}x{res}_block{i}"] = block(width, level_width, res in attn_resolutions)
                width = level_width
                skips.append(width)

        self.dec = nn.ModuleDict()
        for level, (res, level_width) in reversed(list(enumerate(zip(resolutions, widths, strict=True)))):
            if level == len(widths) - 1:
                self.dec[f"{res}x{res}_in0"] = block(width, width, True)
                self.dec[f"{res}x{res}_in1"] = block(width, width, False)
            else:
                self.dec[f"{res}x{res}_up"] = UNetBlock(width, width, emb_channels, dropout, UpConv)
            for i in range(num_blocks + 1):
                attention = i == num_blocks and res in attn_resolutions
                self.dec[f"{res}x{res}_block{i}"] = block(width + skips.pop(), level_width, attention)
                width = level_width
        self.dec[f"{img_resolution}x{img_resolution}_aux_norm"] = group_norm(width)
        self.dec[f"{img_resolution}x{img_resolution}_aux_conv"] = Conv(width, out_channels, 3, gain=NEAR_ZERO)

    def forward(self, x: Tensor, c_noise: Tensor, lam: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """(B, in_channels, R, R) and (B,), and lambda (B,) where it is an input, give (B, out_channels, R, R), where R
        is `img_resolution`. `labels` are augmentation labels (B, augment_dim), of training alone."""
        emb = sinusoidal(c_noise, self.model_channels).to(x.dtype)
        if labels is not None:
            emb = emb + self.map_augment(labels.to(x.dtype))
        emb = self.map_layer1(functional.silu(self.map_layer0(emb)))
        if self.embed_lambda is not None:
            emb = emb + self.embed_lambda(lam)
        emb = functional.silu(emb)

        conv_in, *encoder = self.enc.values()
        x = conv_in(x)
        skips = [x]
        for block in encoder:
            assert isinstance(block, UNetBlock)
            x = self._run(block, x, None, emb)
            skips.append(x)

        *decoder, aux_norm, aux_conv = self.dec.values()
        for block in decoder:
            assert isinstance(block, UNetBlock)
            skip = skips.pop() if block.in_channels != x.shape[1] else None
            x = self._run(block, x, skip, emb)
        return aux_conv(functional.silu(aux_norm(x)))

    def recompute_activations(self, resolution: int | None) -> None:
        """Keep only the inputs of the blocks at `resolution` and above, and compute their activations again in the
        backward pass (Chen et al. 2016): less memory, more time, the same gradients. None keeps all activations."""
        self.recompute_from = resolution

    def _run(self, block: nn.Module, x: Tensor, skip: Tensor | None, emb: Tensor) -> Tensor:
        """The block on x, and in the decoder on the encoder's output `skip` too."""
        if self.recompute_from is None or x.shape[-1] < self.recompute_from or not torch.is_grad_enabled():
            return _joined(block, x, skip, emb)
        # Both passes must drop the same values; without dropout there is no random state to keep.
        return checkpoint(_joined, block, x, skip, emb, use_reentrant=False, preserve_rng_state=self.dropout > 0)


def _joined(block: nn.Module, x: Tensor, skip: Tensor | None, emb: Tensor) -> Tensor:
    """The block on the concatenation of x and skip. It is a function so that a recomputed block does not keep it."""
    return block(x if skip is None else torch.cat([x, skip], dim=1), emb)


class _AugmentationMap(nn.Linear):
    """EDM's map of augmentation labels, without a bias: labels of 0 give 0."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        xavier(self)


class UnusedWeight(nn.Module):
    """A weight of the state dict that no pass uses. It is a buffer, because a parameter without a gradient would stop
    distributed training."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        weight = torch.empty(out_features, in_features)
        nn.init.xavier_uniform_(weight)
        self.register_buffer("weight", weight)
