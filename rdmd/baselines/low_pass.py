"""phi_N, the low-pass filter of ILVR (Choi et al. 2021) and EGSDE (Zhao et al. 2022): resize by 1 / N and back."""

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor

# ILVR's public code resizes with the cubic kernel, EGSDE's with the linear one.
Kernel = Literal["linear", "cubic"]


def low_pass(x: Tensor, factor: int, kernel: Kernel) -> Tensor:
    """phi_N of images (B, C, H, W): the same shape. Points (B, d) have no frequencies and stay unchanged.

    Both public codes resize as MATLAB's imresize does, with borders mirrored: an output is the weighted mean of the
    inputs around its place, by the kernel, which is stretched by N on the way down (antialiasing). The filter is linear
    and keeps constants, and is only nearly a projection, except at N = H = W. Raises ValueError unless `factor` divides
    H and W.
    """
    if x.ndim == 2:
        return x
    height, width = x.shape[2:]
    if height % factor or width % factor:
        raise ValueError(f"the low-pass factor {factor} does not divide the size {height}x{width}")
    return _matrix(height, factor, kernel).to(x) @ x @ _matrix(width, factor, kernel).to(x).T


@cache
def _matrix(side: int, factor: int, kernel: Kernel) -> Tensor:
    """The filter on one axis, (side, side) float64."""
    small = side // factor
    return _resizing(small, side, kernel) @ _resizing(side, small, kernel)


def _resizing(before: int, after: int, kernel: Kernel) -> Tensor:
    """The matrix (after, before) that resizes one axis."""
    scale = after / before
    stretch = max(1.0, before / after)
    place = (torch.arange(after, dtype=torch.float64) + 0.5) / scale - 0.5
    reach = math.ceil(2 * stretch) + 1
    neighbours = place.floor()[:, None].long() + torch.arange(-reach, reach + 1)
    distance = (place[:, None] - neighbours).abs() / stretch
    weights = _linear(distance) if kernel == "linear" else _cubic(distance)
    # Pixel -1 is pixel 0, -2 is 1, and so on, as often as the kernel needs it.
    periodic = neighbours % (2 * before)
    mirrored = torch.minimum(periodic, 2 * before - 1 - periodic)
    matrix = torch.zeros(after, before, dtype=torch.float64)
    return matrix.scatter_add_(1, mirrored, weights / weights.sum(dim=1, keepdim=True))


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """The cubic convolution kernel with a = -1/2 (Keys 1981, eq. 15)."""
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance <= 1, near, far * (distance <= 2))
