"""A small convolutional classifier for images of 8x8 to 64x64, whose penultimate layer is a feature network."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

CHANNELS = 32
# Images are brought to about this side by the first layer, so that 64x64 costs no more than 16x16.
STEM_SIDE = 16


class ClassifierNet(nn.Module):
    """Three convolutions over two resolutions, global mean and maximum, `dim` features, linear logits: one for each
    class, and the last for a corrupted image."""

    def __init__(self, side: int, dim: int, n_classes: int) -> None:
        super().__init__()
        stride = max(1, side // STEM_SIDE)
        wide = 2 * CHANNELS
        self.body = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 2 * stride + 1, stride=stride, padding=stride),
            nn.GroupNorm(8, CHANNELS),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, wide, 3, stride=2, padding=1),
            nn.GroupNorm(8, wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.GroupNorm(8, wide),
            nn.ReLU(),
        )
        self.penultimate = nn.Linear(2 * wide, dim)
        self.head = nn.Linear(dim, n_classes + 1)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to features (B, dim), with a gradient; grey is repeated."""
        x = self.body(x.expand(-1, 3, -1, -1))
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.penultimate(pooled)

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) of 8 or 16 bits to (B, dim) float32."""
        return self.embed(images.float() / (127.5 if images.itemsize == 1 else 32767.5) - 1.0)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) of 8 or 16 bits to logits (B, n_classes + 1)."""
        return self.head(relu(self.features(images)))
