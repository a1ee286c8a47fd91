"""The low-pass filter of ILVR and EGSDE, against torch's antialiased resizing on images whose borders are mirrored."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rdmd.baselines.low_pass import Kernel, low_pass

KERNELS: list[Kernel] = ["linear", "cubic"]
# torch's antialiased cubic kernel has a = -1/2 too; without antialiasing it has another.
MODES = {"linear": "bilinear", "cubic": "bicubic"}
both_kernels = pytest.mark.parametrize("kernel", KERNELS)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def resized(x: Tensor, side: int, mode: str) -> Tensor:
    """x with mirror images around it, resized by torch, which cuts kernels at borders; then the middle alone."""
    row = torch.cat([x, x.flip(3), x, x.flip(3), x], dim=3)
    field = torch.cat([row, row.flip(2), row, row.flip(2), row], dim=2)
    size = 5 * side
    # The middle copy is x itself.
    return interpolate(field, size=(size, size), mode=mode, antialias=True)[
        ..., 2 * side : -2 * side, 2 * side : -2 * side
    ]


@both_kernels
@pytest.mark.parametrize(("side", "factor"), [(8, 2), (12, 3), (16, 4), (8, 8), (64, 32)])
def test_it_resizes_down_and_up_with_mirrored_borders(kernel: Kernel, side: int, factor: int):
    x = torch.randn(2, 3, side, side, generator=rng(), dtype=torch.float64)
    wanted = resized(resized(x, side // factor, MODES[kernel]), side, MODES[kernel])
    torch.testing.assert_close(low_pass(x, factor, kernel), wanted)


def test_linear_weights_by_hand():
    # Down by 2: 1/8, 3/8, 3/8, 1/8, and the mirrored pixel adds its share at the border. Up: 1/4 and 3/4.
    rows = torch.tensor([[4.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 4.0]]) / 8
    up = torch.tensor([[4.0, 0.0], [3.0, 1.0], [1.0, 3.0], [0.0, 4.0]]) / 4
    unit = torch.eye(4).view(4, 1, 1, 4).expand(4, 1, 4, 4)
    torch.testing.assert_close(low_pass(unit, 2, "linear")[:, 0, 0, :], (up @ rows).T)


@both_kernels
def test_it_is_linear_and_keeps_constants(kernel: Kernel):
    x, y = torch.randn(2, 3, 16, 16, generator=rng()), torch.randn(2, 3, 16, 16, generator=rng(1))
    combined = 2 * low_pass(x, 4, kernel) - 3 * low_pass(y, 4, kernel)
    torch.testing.assert_close(low_pass(2 * x - 3 * y, 4, kernel), combined)
    constant = torch.full((1, 3, 8, 16), 0.7)
    torch.testing.assert_close(low_pass(constant, 4, kernel), constant)


def test_it_removes_what_the_small_image_cannot_hold():
    i = torch.arange(32)
    # A wave of one small pixel: without antialiasing all its samples are alike, and it comes back as a constant, 0.7.
    fast = torch.cos(2 * math.pi * i / 4).expand(1, 1, 32, 32)
    assert low_pass(fast, 4, "cubic")[..., 12:-12, 12:-12].abs().max().item() < 0.001
    slow = torch.cos(2 * math.pi * (i + 0.5) / 32).expand(1, 1, 32, 32)
    # Period 32 against a small pixel of 4: a cubic pair keeps all but a few per cent, also at the mirrored borders.
    assert (low_pass(slow, 4, "cubic") - slow).abs().max().item() < 0.05


def test_points_pass_whole_and_odd_sizes_are_refused():
    x = torch.randn(4, 2, generator=rng())
    assert low_pass(x, 4, "linear") is x
    with pytest.raises(ValueError, match="does not divide the size 6x6"):
        low_pass(torch.zeros(1, 3, 6, 6), 4, "cubic")
