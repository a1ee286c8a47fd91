"""The low-pass cost: pictures compared through a Gaussian blur."""

import math

import torch
from torch import Tensor

from rdmd.diffusion.shapes import mean_over_dimensions

# Where the kernel is cut off, in standard deviations: 6e-5 of its mass lies beyond.
REACH = 4.0


class LowPass:
    """||B x - B y||^2, mean over dimensions, where B is a Gaussian blur of standard deviation sigma pixels.

    It holds what a glance sees, the layout of colours, and leaves edges and strokes free. B keeps constants and never
    lengthens a picture, so the cost is at most `squared_l2`, with equality where x - y has one colour. For images in
    [-1, 1] it lies in [0, 4].
    """

    def __init__(self, sigma: float, side: int, device: torch.device) -> None:
        self.blur = blur_matrix(sigma, side).to(device)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, side, side) batches -> (B,)."""
        blur = self.blur.to(x.dtype)
        # The blur is linear, so it is taken once, of the difference. It is symmetric, so it is its own transpose.
        return mean_over_dimensions((blur @ (x - y) @ blur).square())


def blur_matrix(sigma: float, side: int) -> Tensor:
    """The blur along one axis as a matrix (side, side) float64, mirrored at the borders (d c b a | a b c d | d c b a).

    It is symmetric, its rows sum to 1, and its eigenvectors are the cosines of the DCT-II. The matrix takes kernels
    wider than the picture, for which padding would have no pixels.
    """
    radius = math.ceil(REACH * sigma)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma).square())
    kernel /= kernel.sum()
    folded = (torch.arange(side)[:, None] + offsets) % (2 * side)
    folded = torch.minimum(folded, 2 * side - 1 - folded)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, folded, kernel.expand(side, -1))
