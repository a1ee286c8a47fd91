"""Whether a translation keeps the colour of its source, as coloured digits are to."""

import torch
from torch import Tensor


def colour_vector(images: Tensor) -> Tensor:
    """The mean of each channel over the pixels, divided by the largest of the three: (N, 3, H, W) uint8 to
    (N, 3).

    Brightness drops out: a thin and a thick stroke of one hue on black have the same vector. The largest
    entry is 1. A black picture has no colour and counts as grey, (1, 1, 1).
    """
    means = images.double().mean(dim=(2, 3))
    largest = means.amax(dim=1, keepdim=True)
    return torch.where(largest > 0, means / largest.clamp(min=1e-12), torch.ones_like(means))


def colour_error(source: Tensor, translation: Tensor) -> Tensor:
    """The mean absolute difference of the two colour vectors, one value a sample (N,), between 0 and 1.

    0 is the same hue and saturation; 1 is a pure primary against its complement, such as red against cyan.
    Two pictures in independent, fully saturated hues on black differ by 13/27 on average.
    """
    if source.shape != translation.shape:
        raise ValueError(f"source {tuple(source.shape)} and translation {tuple(translation.shape)} must be alike")
    return (colour_vector(source) - colour_vector(translation)).abs().mean(dim=1)
