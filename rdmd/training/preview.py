"""Small pictures of a run in progress: batches side by side, one PNG."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from rdmd.domains.pixels import to_uint8
from rdmd.files import replacing

TILE = 64
COLUMNS = 8
CANVAS = 384
DOTS = ("#b0b0b0", "#1f4e9c")


def save_preview(batches: tuple[Tensor, ...], path: Path) -> None:
    """Write batches of images (B, 3, H, W) in [-1, 1] as rows of tiles, one batch below another per row of eight,
    or of points (B, 2) as dots, later batches over earlier ones."""
    picture = _tiles(batches) if batches[0].ndim == 4 else _dots(batches)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _tiles(batches: tuple[Tensor, ...]) -> Image.Image:
    size = max(1, TILE // batches[0].shape[-1])
    n = len(batches[0])
    rows = []
    for start in range(0, n, COLUMNS):
        for batch in batches:
            chosen = to_uint8(batch[start : start + COLUMNS]).cpu()
            blank = torch.zeros(COLUMNS - len(chosen), *chosen.shape[1:], dtype=torch.uint8)
            rows.append(torch.cat([*torch.cat([chosen, blank])], dim=2))
    grid = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    return Image.fromarray(np.repeat(np.repeat(grid, size, axis=0), size, axis=1))


def _dots(batches: tuple[Tensor, ...]) -> Image.Image:
    reach = max(1.0, math.ceil(max(batch.abs().max().item() for batch in batches)))
    picture = Image.new("RGB", (CANVAS, CANVAS), "white")
    draw = ImageDraw.Draw(picture)
    for batch, colour in zip(batches, DOTS, strict=False):
        for x, y in ((batch.cpu().double() / reach + 1) * CANVAS / 2).tolist():
            draw.ellipse((x - 2, CANVAS - y - 2, x + 2, CANVAS - y + 2), fill=colour)
    return picture
