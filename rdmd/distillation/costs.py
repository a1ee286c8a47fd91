"""Transport costs c(x, y), one value per sample: they keep a translation close to its source."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rdmd.diffusion.loss import mean_over_dimensions

# c(x, y): two (B, ...) batches -> (B,)
Cost = Callable[[Tensor, Tensor], Tensor]


def squared_l2(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||^2, mean over dimensions. For images in [-1, 1] it lies in [0, 4]. The cost of the theorem."""
    return mean_over_dimensions((x - y).square())


def l1(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||_1, mean over dimensions. For images in [-1, 1] it lies in [0, 2]."""
    return mean_over_dimensions((x - y).abs())


@dataclass(frozen=True)
class Huber:
    """d^2 where |d| <= delta, else delta (2 |d| - delta), for d = x - y, mean over dimensions (Huber 1964).

    Twice the textbook form, so that it is `squared_l2` for a large delta; over 2 delta it goes to `l1` as delta goes
    to 0. It is at most either: min(squared_l2, 2 delta l1). For images in [-1, 1] it lies in [0, delta (4 - delta)], or
    in [0, 4] where delta is 2 or more.
    """

    delta: float

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, ...) batches -> (B,)."""
        d = (x - y).abs()
        near = d.clamp(max=self.delta)
        return mean_over_dimensions(near * (2 * d - near))


# Where the kernel is cut off, in standard deviations: 6e-5 of its mass lies beyond.
REACH = 4.0


class LowPass:
    """||B x - B y||^2, mean over dimensions, where B is a Gaussian blur of standard deviation sigma pixels.

    It preserves the layout of colours and leaves edges and strokes free. B keeps constants and increases no norm, so
    the cost is at most `squared_l2`, with equality where x - y has one colour. For images in [-1, 1] it lies in [0, 4].
    """

    def __init__(self, sigma: float, side: int, device: torch.device) -> None:
        self.blur = blur_matrix(sigma, side).to(device)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, side, side) batches -> (B,)."""
        blur = self.blur.to(x.dtype)
        # The blur is linear: one blur of the difference is enough. It is symmetric, so it is its own transpose.
        return mean_over_dimensions((blur @ (x - y) @ blur).square())


def blur_matrix(sigma: float, side: int) -> Tensor:
    """The blur along one axis as a matrix (side, side) float64, mirrored at the borders (d c b a | a b c d | d c b a).

    It is symmetric, its rows sum to 1, and its eigenvectors are the cosines of the DCT-II. The matrix takes kernels
    wider than the image, for which padding would have no pixels.
    """
    radius = math.ceil(REACH * sigma)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma).square())
    kernel /= kernel.sum()
    folded = (torch.arange(side)[:, None] + offsets) % (2 * side)
    folded = torch.minimum(folded, 2 * side - 1 - folded)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, folded, kernel.expand(side, -1))


# (B, C, H, W) in [-1, 1] -> (B, F), differentiable
Embedding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeatureCost:
    """2 - 2 cos(f(x), f(y)): the squared distance of the features' directions, for any network f.

    It is the mean over features of the squared difference once each f has a root mean square of 1, so that it lies in
    [0, 4] as `squared_l2` does, whatever the network's scale. (A perceptual loss as of Johnson et al. 2016, on features
    of unit length as in LPIPS.)
    """

    features: Embedding

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, H, W) batches -> (B,)."""
        return (normalize(self.features(x), dim=1) - normalize(self.features(y), dim=1)).square().sum(1)


@dataclass(frozen=True)
class InPixels:
    """c(decode(x), decode(y)): the cost of latents by their images. The gradient goes through the decoder."""

    cost: Cost
    decode: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, h, w) batches -> (B,)."""
        with torch.no_grad():
            source = self.decode(x)
        return self.cost(source, self.decode(y))
