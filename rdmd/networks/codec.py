"""A codec: an autoencoder of diffusers by which the networks see an image as latents, a smaller array.

diffusers is imported where a codec is opened, so that nothing else needs it.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rdmd import config
from rdmd.errors import UserError
from rdmd.networks.diffusers_import import NETWORK, WEIGHTS, CodecFile, codec_folder, pretrained, settings_in

KINDS = ("AutoencoderKL", "AutoencoderTiny")
# Pixels that are encoded or decoded at once where no gradient is needed: an autoencoder needs gigabytes for an image of
# 512x512.
AT_ONCE = 2 * 512**2


class Codec(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to latents (B, C, H / factor, W / factor), and back.

    Latents are z = scaling_factor (E(x) - shift_factor), with the encoder's mean E(x) and the two numbers of the
    checkpoint's config.json, by which z has about unit variance (Rombach et al. 2022, appendix G). `sha256` is that of
    the weights and of these numbers.
    """

    def __init__(self, autoencoder: Any) -> None:
        """autoencoder: an AutoencoderKL or AutoencoderTiny."""
        super().__init__()
        self.autoencoder = autoencoder.float().eval().requires_grad_(False)
        settings = autoencoder.config
        self.scale, self.shift = settings.get("scaling_factor") or 1.0, settings.get("shift_factor") or 0.0
        levels = settings.get("block_out_channels") or settings["encoder_block_out_channels"]
        self.channels, self.factor = int(settings["latent_channels"]), 2 ** (len(levels) - 1)
        digest = hashlib.sha256(json.dumps([type(autoencoder).__name__, self.scale, self.shift]).encode())
        for name, tensor in sorted(autoencoder.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        self.sha256 = digest.hexdigest()

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of an image."""
        return self.channels, height // self.factor, width // self.factor

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], with sides that are multiples of `factor`, to latents."""
        encoded = self.autoencoder.encode(images)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (latents - self.shift) * self.scale

    def forward(self, latents: Tensor) -> Tensor:
        """Latents to images in [-1, 1], not clamped: the decoder."""
        return self.autoencoder.decode(latents / self.scale + self.shift).sample

    @torch.no_grad()
    def encoded(self, images: Tensor) -> Tensor:
        """As `encode`, without gradients, a few images at a time."""
        return _in_parts(self.encode, images, images[0, 0].numel())

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """As `forward`, without gradients, a few images at a time."""
        return _in_parts(self, latents, latents[0, 0].numel() * self.factor**2)

    def latents(self, images: np.ndarray) -> np.ndarray:
        """Stored images, (N, H, W, 3) of 8 or 16 bits or float32 in [-1, 1], as stored latents (N, h, w, C) float16.

        Raises UserError if a side is no multiple of `factor`, or if latents are not finite in float16.
        """
        if images.shape[1] % self.factor or images.shape[2] % self.factor:
            raise UserError(
                f"the codec divides the sides of images by {self.factor}, which {images.shape[2]}x{images.shape[1]} "
                "does not allow; use another resolution."
            )
        device = next(self.parameters()).device
        x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device).float()
        if images.dtype.kind == "u":
            x = x / (np.iinfo(images.dtype).max / 2) - 1
        latents = self.encoded(x).permute(0, 2, 3, 1).half()
        if not latents.isfinite().all():
            raise UserError("the codec gives a latent that is not finite; choose another preprocess.codec.")
        return latents.cpu().contiguous().numpy()

    def save(self, folder: Path) -> CodecFile:
        """Write the codec's two files to `folder`, as diffusers does."""
        self.autoencoder.save_pretrained(folder, safe_serialization=True)
        return CodecFile(path=folder.resolve(), sha256=self.sha256, factor=self.factor)


def _in_parts(f: Callable[[Tensor], Tensor], x: Tensor, pixels: int) -> Tensor:
    return torch.cat([f(part) for part in x.split(max(1, AT_ONCE // pixels))])


def open_codec(name: str) -> tuple[CodecFile, Codec]:
    """The codec that `preprocess.codec` names, a folder or `hf:ORG/NAME`, and where it lies.

    Raises UserError if it is missing, damaged, or none of `KINDS` for RGB images. Only safetensors are read.
    """
    folder = codec_folder(name)
    kind = settings_in(folder / NETWORK).get("_class_name")
    if kind not in KINDS:
        raise UserError(
            f"{folder} holds a network of the class {kind}, and only {' and '.join(KINDS)} are known here; name "
            "another as preprocess.codec."
        )
    import diffusers

    codec = Codec(pretrained(getattr(diffusers, kind), folder / WEIGHTS, "preprocess.codec"))
    channels = {codec.autoencoder.config[name] for name in ("in_channels", "out_channels")}
    if channels != {3}:
        raise UserError(f"{folder} holds a codec that is not of RGB images; name another as preprocess.codec.")
    return CodecFile(path=folder.resolve(), sha256=codec.sha256, factor=codec.factor), codec


def codec_for(settings: config.Settings) -> tuple[CodecFile, Codec]:
    """As `open_codec`, for an experiment with a codec. Raises UserError also if its settings do not fit the latents."""
    name, side = settings.preprocess.codec, settings.preprocess.resolution
    assert name is not None, "the experiment has no codec"
    file, codec = open_codec(name)
    problems = [] if side % file.factor else list(settings.misfits(side // file.factor, "the side of latents"))
    if side % file.factor:
        problems.append(
            f"preprocess.resolution is {side}, which the codec at preprocess.codec cannot divide by {file.factor}; use "
            "a multiple of that"
        )
    if problems:
        raise UserError(f"params.yaml: {'. '.join(problems)}.")
    return file, codec


def encoder_for(settings: config.Settings) -> Codec | None:
    """The codec that encodes an experiment's images, on the GPU if it may use one; None where it has none."""
    if settings.preprocess.codec is None:
        return None
    _, codec = codec_for(settings)
    return codec.to("cuda" if settings.launch.device != "cpu" and torch.cuda.is_available() else "cpu")


def load_codec(folder: Path, file: CodecFile, device: torch.device) -> Codec:
    """The codec of a run or of a model in `folder`. Raises UserError if it is not the one that `file` names."""
    _, codec = open_codec(str(folder / file.path))
    if codec.sha256 != file.sha256:
        raise UserError(
            f"{folder / file.path} holds another codec than the model's; copy the model again, or repeat `dvc repro`."
        )
    return codec.to(device)
