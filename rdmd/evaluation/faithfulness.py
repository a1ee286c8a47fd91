"""How close a translation is to its source, one value for each image, and the mean of such values.

Images are (N, C, H, W), uint8 or uint16. White is 255, or 65535 where one of a pair has 16 bits.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.data.transforms import bits_of

LARGEST_PSNR = 100.0
SSIM_WINDOW = 7


@dataclass(frozen=True)
class Estimate:
    """The mean of per-sample values and the standard error of that mean, None of a single value or group."""

    mean: float
    se: float | None


def estimate(values: Tensor, groups: Tensor | None = None) -> Estimate:
    """Mean and standard error of per-sample values (N,), N >= 1, in float64.

    Values of one group, int64 (N,) from 0, may depend on each other; groups are independent, as in
    `rdmd.evaluation.realism.Groups`. None puts each value into its own: the usual standard error, with N - 1.
    """
    values = values.double()
    if values.ndim != 1 or len(values) < 1:
        raise ValueError(f"needs one or more per-sample values, got shape {tuple(values.shape)}")
    mean = values.mean()
    away = values - mean if groups is None else values.new_zeros(len(values)).index_add_(0, groups, values - mean)
    count = len(values) if groups is None else len(groups.unique())
    # The cluster-robust variance of a mean (Liang and Zeger 1986), with its correction for few clusters.
    se = math.sqrt(count / (count - 1) * away.square().sum().item()) / len(values) if count > 1 else None
    return Estimate(mean.item(), se)


def cost(source: Tensor, translation: Tensor) -> Tensor:
    """c(x, y): the squared difference in [-1, 1], averaged over channels and pixels. Between 0 and 4."""
    levels, white = _levels_apart(source, translation)
    return (levels * (2 / white)).square().mean(dim=1)


def l2_norm01(source: Tensor, translation: Tensor) -> Tensor:
    """The Euclidean distance with pixels in [0, 1]: the "L2" of the paper's tables."""
    levels, white = _levels_apart(source, translation)
    return (levels / white).norm(dim=1)


def psnr(source: Tensor, translation: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, `10 log10(white^2 / MSE)`, with the peak 255 of 8 bits or 65535 of 16.

    An unchanged image, whose PSNR is infinite, counts as 100 dB so that a mean exists; the largest finite value of a
    64x64 RGB image of 8 bits is 89 dB. No value is above 100 dB.
    """
    levels, white = _levels_apart(source, translation)
    return (10 * torch.log10(white**2 / levels.square().mean(dim=1))).clamp(max=LARGEST_PSNR)


def ssim(source: Tensor, translation: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) as scikit-image computes it, at most 1.

    The window is 7x7, or the largest odd size that fits a smaller image; uniform weights, data range 0 to white, mean
    over channels.
    """
    from skimage.metrics import structural_similarity

    source, translation, white = _pair(source, translation)
    side = min(source.shape[2:])
    window = min(SSIM_WINDOW, side if side % 2 else side - 1)
    if window < 3:
        raise ValueError(f"SSIM needs images of 3x3 or more, got {tuple(source.shape[2:])}")
    pairs = zip(source.cpu().numpy(), translation.cpu().numpy(), strict=True)
    values = [structural_similarity(x, y, win_size=window, data_range=white, channel_axis=0) for x, y in pairs]
    return torch.tensor(values, dtype=torch.float64)


def colour_error(source: Tensor, translation: Tensor) -> Tensor:
    """The mean absolute difference of the two colour vectors, one value for each sample (N,), between 0 and 1.

    0 is the same hue and saturation; 1 is a pure primary against its complement, such as red against cyan. Two images
    in independent, fully saturated hues on black differ by 13/27 on average.
    """
    _pair(source, translation)
    return (colour_vector(source) - colour_vector(translation)).abs().mean(dim=1)


def colour_vector(images: Tensor) -> Tensor:
    """The mean of each channel over the pixels, divided by the largest of the three: (N, 3, H, W) to (N, 3).

    Brightness drops out: a thin and a thick stroke of one hue on black have the same vector. The largest entry is 1. A
    black image has no colour and counts as grey, (1, 1, 1).
    """
    means = images.double().mean(dim=(2, 3))
    largest = means.amax(dim=1, keepdim=True)
    return torch.where(largest > 0, means / largest.clamp(min=1e-12), torch.ones_like(means))


def _levels_apart(source: Tensor, translation: Tensor) -> tuple[Tensor, int]:
    """The difference in grey levels, (N, dimensions) float64, and the level of white."""
    source, translation, white = _pair(source, translation)
    return (source.double() - translation.double()).flatten(1), white


def _pair(source: Tensor, translation: Tensor) -> tuple[Tensor, Tensor, int]:
    """Both images, the same level of white in both, and that level. 8 bits beside 16 become floats."""
    if source.shape != translation.shape or source.ndim != 4:
        raise ValueError(
            f"source {tuple(source.shape)} and translation {tuple(translation.shape)} must both be (N, C, H, W)"
        )
    if source.is_floating_point() or translation.is_floating_point():
        raise ValueError("image metrics take uint8 or uint16; use rdmd.data.transforms.to_pixels")
    if source.dtype == translation.dtype:
        return source, translation, 2 ** bits_of(source) - 1
    source, translation = (each if bits_of(each) == 16 else each.double() * 257 for each in (source, translation))
    return source, translation, 65535
