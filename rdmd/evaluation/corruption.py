"""Corruptions of images, and the check that a feature network sees them.

A Frechet distance ranks translations only if corrupted images lie farther from the target than clean ones. A network
that learned nothing but two classes may not see noise or blur at all.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from rdmd.data.transforms import bits_of, to_pixels, to_unit
from rdmd.evaluation.features import FeatureNetwork, features_of
from rdmd.evaluation.realism import fid

STRENGTHS = (0.25, 0.5, 1.0)
# Held-out images that the check takes: two halves of 64, each compared with the other.
CHECKED = 128
# Two in each half, which a covariance needs.
FEWEST = 4
SLACK = 0.1
_BLOCK = 8


def corrupt(images: Tensor, kind: str, strength: float, rng: torch.Generator) -> Tensor:
    """Images (N, C, H, W) of 8 or 16 bits corrupted by one of `KINDS`, on their device; `strength` is in [0, 1], 0
    changes nothing.

    Random numbers come from `rng`, a generator of the CPU.
    """
    return to_pixels(KINDS[kind](to_unit(images), strength, rng).clamp(-1, 1), bits_of(images))


def _noise(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Gaussian noise; `strength` is its standard deviation."""
    return x + strength * torch.randn(x.shape, generator=rng).to(x.device)


def _blur(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """A Gaussian blur of up to an eighth of the side."""
    height, width = (_smoothing(side, strength * side / 8).to(x.device) for side in x.shape[-2:])
    return height @ x @ width.T


def _smoothing(side: int, sigma: float) -> Tensor:
    """Rows that average along a line of `side` pixels with Gaussian weights, (side, side)."""
    place = torch.arange(side, dtype=torch.float32)
    return torch.softmax(-((place[:, None] - place) ** 2) / (2 * max(sigma, 1e-3) ** 2), dim=1)


def _shuffled_patches(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """A share `strength` of the patches of a 4x4 grid change places."""
    return _shuffled(x, max(1, min(x.shape[-2:]) // 4), strength, rng)


def _shuffled_pixels(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """A share `strength` of the pixels change places, each with its colour."""
    return _shuffled(x, 1, strength, rng)


def _shuffled(x: Tensor, side: int, share: float, rng: torch.Generator) -> Tensor:
    """Patches of `side` change places; what is left right and below of the last whole patch stays."""
    rows, columns = x.shape[-2] // side, x.shape[-1] // side
    whole = x[..., : rows * side, : columns * side]
    patches = whole.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 1, 3, 5)
    patches = patches.flatten(3).flatten(1, 2)
    count = rows * columns
    moved = torch.rand(len(x), count, generator=rng).argsort(dim=1)[:, : math.ceil(share * count)]
    order = torch.arange(count).repeat(len(x), 1).scatter(1, moved, moved.roll(1, dims=1)).to(x.device)
    patches = patches.gather(1, order[..., None].expand_as(patches))
    patches = patches.reshape(len(x), rows, columns, x.shape[1], side, side).permute(0, 3, 1, 4, 2, 5)
    result = x.clone()
    result[..., : rows * side, : columns * side] = patches.reshape(whole.shape)
    return result


def _quantised(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """JPEG's loss: the cosine coefficients of 8x8 blocks are rounded to multiples of 2 `strength`."""
    if strength == 0:
        return x
    below, right = (-side % _BLOCK for side in x.shape[-2:])
    padded = pad(x, (0, right, 0, below), mode="replicate")
    blocks = padded.unflatten(3, (-1, _BLOCK)).unflatten(2, (-1, _BLOCK)).transpose(3, 4)
    cosine = _cosines(_BLOCK).to(x.device)
    step = 2 * strength
    kept = (cosine @ blocks @ cosine.T / step).round() * step
    blocks = cosine.T @ kept @ cosine
    return blocks.transpose(3, 4).reshape(padded.shape)[..., : x.shape[-2], : x.shape[-1]]


def _cosines(n: int) -> Tensor:
    """The orthonormal DCT-II, (n, n)."""
    place = torch.arange(n, dtype=torch.float32)
    rows = torch.cos(math.pi / n * (place + 0.5) * place[:, None]) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def _faded(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """The image fades to its mean colour: at 1 it is constant."""
    return x + strength * (x.mean(dim=(2, 3), keepdim=True) - x)


KINDS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "shuffled patches": _shuffled_patches,
    "shuffled pixels": _shuffled_pixels,
    "block quantisation": _quantised,
    "fading to a constant": _faded,
}


def corrupted(images: Tensor, rng: torch.Generator) -> Tensor:
    """Images (N, C, H, W) of 8 or 16 bits, each corrupted: kinds take turns, and the strength of each is drawn from (0,
    1]."""
    parts = images.tensor_split(len(KINDS))
    strengths = 1 - torch.rand(len(KINDS), generator=rng)
    turns = zip(parts, KINDS, strengths.tolist(), strict=True)
    return torch.cat([corrupt(part, kind, strength, rng) for part, kind, strength in turns])


@dataclass(frozen=True)
class CorruptionCheck:
    """Frechet distances of held-out images to others of the same kind, clean and corrupted at each of `STRENGTHS`."""

    images: int
    clean: float
    corrupted: dict[str, list[float]]

    @property
    def refused(self) -> str | None:
        """Why realism on these features ranks nothing, in a clause; None if every corruption raises the distance.

        No strength may bring images nearer to the target than clean ones, and the greatest must take them farther, both
        by more than `SLACK`, by which a distance of 64 images to 64 moves with the draw. Where features are saturated,
        images that are corrupted beyond recognition need not go on rising, but keep half of what was gained before.
        """
        low, high = (1 - SLACK) * self.clean, (1 + SLACK) * self.clean
        for kind, distances in self.corrupted.items():
            gains = [distance - self.clean for distance in distances]
            falls = any(gain < max(gains[:index], default=0) / 2 for index, gain in enumerate(gains) if index)
            if min(distances) < low or distances[-1] <= high or falls:
                found = ", ".join(f"{distance:.3g}" for distance in distances)
                return f"{kind} at rising strength gives the distances {found}, and clean images {self.clean:.3g}"
        return None


def check_corruptions(
    network: FeatureNetwork, held_out: Tensor, batch: int, seed: int, device: torch.device
) -> CorruptionCheck:
    """What corruptions of the target's held-out images, (N, C, H, W) of 8 or 16 bits, N >= `FEWEST`, do to the Frechet
    distance.

    Up to `CHECKED` images are drawn and halved. A distance is the mean of two: each half, corrupted, against the other
    half as it is. Halves of one split differ by chance alone, so clean images have the least distance that a draw of
    this size can have.
    """
    if len(held_out) < FEWEST:
        raise ValueError(f"the check of a feature network needs {FEWEST} or more images")
    rng = torch.Generator().manual_seed(seed)
    images = held_out[torch.randperm(len(held_out), generator=rng)[:CHECKED]]
    half = len(images) // 2
    clean = features_of(network, images, batch, device)

    def distance(features: Tensor) -> float:
        return (fid(features[:half], clean[half:]) + fid(features[half:], clean[:half])) / 2

    return CorruptionCheck(
        len(images),
        distance(clean),
        {
            kind: [
                distance(features_of(network, corrupt(images, kind, strength, rng), batch, device))
                for strength in STRENGTHS
            ]
            for kind in KINDS
        },
    )
