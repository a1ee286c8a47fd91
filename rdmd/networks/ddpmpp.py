"""The DDPM++ U-Net of Karras et al. 2022 (appendix F), with the tensor names of the published checkpoints."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rdmd.networks.blocks import (
    NEAR_ZERO,
    AttentionBlock,
    Conv,
    DownConv,
    Linear,
    UNetBlock,
    UpConv,
    group_norm,
    sinusoidal,
)

EMBEDDING_MULT = 4


class DDPMPP(nn.Module):
    """F(x, c_noise), unconditional.

    Level `l` of the U-Net has resolution `img_resolution / 2^l` and `channel_mult[l] * model_channels`
    channels. An encoder level has `num_blocks` residual blocks, a decoder level one more. Attention runs
    in the encoder at `attn_resolutions`, in the last decoder block of these, and between encoder and
    decoder.

    `img_resolution` must be a multiple of `2^(len(channel_mult) - 1)` and `model_channels` even.
    `augment_dim` only adds the tensor by which the published networks take augmentation labels; ours are
    always called without.
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
    ) -> None:
        super().__init__()
        emb_channels = EMBEDDING_MULT * model_channels
        widths = [model_channels * mult for mult in channel_mult]
        resolutions = [img_resolution >> level for level in range(len(widths))]
        self.model_channels = model_channels
        self.dropout = dropout
        self.recompute_from: int | None = None
        if augment_dim > 0:
            self.map_augment = UnusedWeight(model_channels, augment_dim)
        self.map_layer0 = Linear(model_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)

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

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(B, in_channels, R, R) and (B,) give (B, out_channels, R, R), where R is `img_resolution`."""
        emb = sinusoidal(c_noise, self.model_channels).to(x.dtype)
        emb = functional.silu(self.map_layer1(functional.silu(self.map_layer0(emb))))

        conv_in, *encoder = self.enc.values()
        x = conv_in(x)
        skips = [x]
        for block in encoder:
            x = self._run(block, x, None, emb)
            skips.append(x)

        *decoder, aux_norm, aux_conv = self.dec.values()
        for block in decoder:
            skip = skips.pop() if block.in_channels != x.shape[1] else None
            x = self._run(block, x, skip, emb)
        return aux_conv(functional.silu(aux_norm(x)))

    def recompute_activations(self, resolution: int | None) -> None:
        """Keep only the inputs of the blocks at `resolution` and above, and compute these again in the backward pass
        (Chen et al. 2016): the same gradients for less memory and more time. None keeps all activations."""
        self.recompute_from = resolution

    def _run(self, block: UNetBlock, x: Tensor, skip: Tensor | None, emb: Tensor) -> Tensor:
        """The block on x and, in the decoder, the encoder's output that it continues."""
        if self.recompute_from is None or x.shape[-1] < self.recompute_from or not torch.is_grad_enabled():
            return _joined(block, x, skip, emb)
        # Dropout is to fall on the same places in both passes; without it there is no random state to keep.
        return checkpoint(_joined, block, x, skip, emb, use_reentrant=False, preserve_rng_state=self.dropout > 0)


def _joined(block: UNetBlock, x: Tensor, skip: Tensor | None, emb: Tensor) -> Tensor:
    """Joined here, so that a block that is computed twice does not keep what it joined."""
    return block(x if skip is None else torch.cat([x, skip], dim=1), emb)


class UnusedWeight(nn.Module):
    """A weight that stands in the state dict and is never used.

    It is a buffer: as a parameter that never gets a gradient it would stop distributed training.
    """

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        weight = torch.empty(out_features, in_features)
        nn.init.xavier_uniform_(weight)
        self.register_buffer("weight", weight)
