"""Pictures to try without one of one's own."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from rdmd.domains.shards import read_split
from rdmd.errors import UserError
from rdmd.pipeline.layout import Layout

COUNT = 8


def samples(layout: Layout, resolution: int) -> tuple[list[np.ndarray], str]:
    """Pictures, uint8 (H, W, 3), and what they are: some of the source's test split, or, where its shards are not here,
    one that is drawn."""
    try:
        pictures = read_split(layout.shards / "source", "test").data
    except UserError:
        return [drawn(resolution)], "a drawn picture (the source's test split is not here)"
    # Copies of one scan lie beside each other.
    pictures = pictures[torch.linspace(0, len(pictures) - 1, min(COUNT, len(pictures))).long()]
    return list(pictures.permute(0, 2, 3, 1).numpy()), "of the source's test split"


def drawn(resolution: int) -> np.ndarray:
    """Colours over a square, uint8 (resolution, resolution, 3)."""
    ramp = np.linspace(0, 255, resolution).astype(np.uint8)
    right, down = np.meshgrid(ramp, ramp)
    return np.stack([right, down, 255 - right], axis=2)


def png(picture: np.ndarray) -> str:
    """A PNG file in base64 of a uint8 (H, W, 3) picture."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
