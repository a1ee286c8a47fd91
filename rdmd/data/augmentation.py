"""Augmentation of images for few data: EDM's, whose labels keep it out of the samples, and flips and shifts."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from rdmd.config import AUGMENTATION_LABELS

# Deviations of log2 of the scale and of the stretch, and of a translation in widths of the image (EDM's AugmentPipe).
SCALE_STD, STRETCH_STD, TRANSLATION_STD = 0.2, 0.2, 0.125


def draw_labels(n: int, p: float, rng: torch.Generator) -> Tensor:
    """The augmentation labels of n images, (n, 9) float32 on the generator's device (Karras et al. 2022, appendix F.2).

    They are x-flip (0 or 1), y-flip, scale (log2, in deviations), cos - 1 and sin of a rotation, the components of a
    stretch, translations in x and y (in deviations). Half of the images are flipped; scale, rotation, stretch and
    translation are drawn with probability `p` each, and are 0 otherwise.

    Two things differ from EDM's. The y-flip stays 0: an x-flip with half a turn is the same. A stretch is positive in
    any direction: EDM's shortening in one direction has the label of a stretch in the opposite one.
    """
    flip, turn, direction, *chosen = torch.rand(7, n, generator=rng, device=rng.device)
    scale, stretch, right, down = torch.randn(4, n, generator=rng, device=rng.device)
    scaled, turned, stretched, translated = (one < p for one in chosen)
    angle, axis = math.pi * (2 * turn - 1) * turned, 2 * math.pi * direction
    stretch = stretch.abs() * stretched
    labels = [
        (flip < 0.5).float(), torch.zeros_like(flip), scale * scaled, angle.cos() - 1, angle.sin(),
        stretch * axis.cos(), stretch * axis.sin(), right * translated, down * translated,
    ]  # fmt: skip
    assert len(labels) == AUGMENTATION_LABELS
    return torch.stack(labels, dim=1)


def transformed(images: Tensor, labels: Tensor) -> Tensor:
    """Square images (B, C, R, R) as their labels (B, 9) say; where all are 0, the images themselves.

    In turn: flips, scale, rotation (positive angles turn counter-clockwise), stretch by 2^(0.2 w) along an axis, whose
    angle counts likewise, and by its inverse across it, translation to the right and down. Images are mirrored beyond
    their border, and bicubic between pixels.
    """
    flip_x, flip_y, scale, cos, sin, along, across, right, down = labels.unbind(1)
    images = torch.where(_per_image(flip_x > 0), images.flip(3), images)
    images = torch.where(_per_image(flip_y > 0), images.flip(2), images)
    # From a place in the output to that in the input, where x goes right and y goes down.
    turn = _matrices(cos + 1, -sin, sin, cos + 1) * torch.exp2(-SCALE_STD * scale)[:, None, None]
    rate, twice = math.log(2) * STRETCH_STD * torch.hypot(along, across), 2 * torch.atan2(across, along)
    even, odd = rate.cosh(), rate.sinh()
    narrow = _matrices(even - odd * twice.cos(), odd * twice.sin(), odd * twice.sin(), even + odd * twice.cos())
    linear = turn @ narrow
    # The image is 2 wide in the grid's units.
    offset = 2 * TRANSLATION_STD * torch.stack([right, down], dim=1)[:, :, None]
    grid = affine_grid(torch.cat([linear, -linear @ offset], dim=2), list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return torch.where(_per_image(labels[:, 2:].any(dim=1)), moved, images)


def flipped_and_shifted(images: Tensor, flip: bool, shift: int, rng: torch.Generator) -> Tensor:
    """Images (B, C, H, W), half of them mirrored if `flip`, each moved by a whole number of pixels within `shift` in
    both directions. Where the image ends, its last pixels are repeated."""
    n, _, height, width = images.shape
    mirrored = torch.rand(n, 1, generator=rng, device=images.device) < (0.5 if flip else 0.0)
    down, right = torch.randint(-shift, shift + 1, (2, n, 1), generator=rng, device=images.device)
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    columns = torch.where(mirrored, width - 1 - columns, columns)
    each = torch.arange(n, device=images.device)[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _per_image(flags: Tensor) -> Tensor:
    return flags[:, None, None, None]


def _matrices(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[[a, b], [c, d]] for each image: (B, 2, 2)."""
    return torch.stack([torch.stack([a, b], dim=1), torch.stack([c, d], dim=1)], dim=1)
