"""Denoising score matching (Karras et al. 2022), with one loss value per sample.

min_D  E beta_t ||D(x_0 + sigma_t eps, sigma_t) - x_0||^2
"""

from collections.abc import Callable

import torch
from torch import Tensor

# D(x_t, sigma): (B, ...), (B,) -> (B, ...)
Denoiser = Callable[[Tensor, Tensor], Tensor]


def like(scalars: Tensor, x: Tensor) -> Tensor:
    """View (B,) as (B, 1, ..., 1) so that it broadcasts over `x` of shape (B, ...)."""
    return scalars.view(-1, *([1] * (x.ndim - 1)))


def mean_over_dimensions(x: Tensor) -> Tensor:
    """(B, ...) -> (B,). The transport cost and the matching term share this reduction, so that lambda means the same
    at every resolution."""
    return x.flatten(1).mean(1)


def noise_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal noise of x's shape from `rng`, which lives on x's device."""
    return torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)


def denoising_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """beta(sigma) = 1/sigma^2 + 1/sigma_data^2 (Karras et al. 2022, table 1: lambda(sigma); the public DMD code's
    weight of the fake denoiser is the same)."""
    return sigma**-2 + sigma_data**-2


def denoising_loss(D: Denoiser, x_0: Tensor, sigma: Tensor, eps: Tensor, sigma_data: float) -> Tensor:
    """beta_t ||D(x_0 + sigma_t eps, sigma_t) - x_0||^2, mean over dimensions.

    x_0, eps: (B, ...); sigma: (B,). Returns (B,), unreduced: the training loop owns the scaling.
    """
    x_t = x_0 + like(sigma, x_0) * eps
    return denoising_error(D(x_t, sigma), x_0, sigma, sigma_data)


def denoising_error(denoised: Tensor, x_0: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """The same loss from an output of D that exists already: `denoised` (B, ...) = D(x_t, sigma)."""
    return denoising_weight(sigma, sigma_data) * mean_over_dimensions((denoised - x_0).square())
