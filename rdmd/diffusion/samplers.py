"""Samplers as pure functions of a denoiser D(x_t, sigma); x_t = x_0 + sigma eps throughout."""

from itertools import pairwise

import torch
from torch import Tensor

from rdmd.diffusion.loss import Denoiser, noise_like


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """The `steps` noise levels from sigma_max down to sigma_min, then 0: shape (steps + 1,), float64
    (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (top + ramp * (bottom - top)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def denoise(D: Denoiser, x_t: Tensor, sigma: float) -> Tensor:
    """D(x_t, sigma) with one noise level for the whole batch."""
    return D(x_t, x_t.new_full((len(x_t),), sigma))


@torch.no_grad()
def sample_heun(D: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Integrate the probability-flow ODE dx/dsigma = (x - D(x, sigma)) / sigma from sigmas[0] to sigmas[-1] by
    Heun's second-order method (Karras et al. 2022, algorithm 1), with an Euler step into 0.

    x: (B, ...) at noise level sigmas[0]. Evaluates D 2n - 1 times for n steps that end in 0.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        slope = (x - denoise(D, x, sigma)) / sigma
        proposal = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope_next = (proposal - denoise(D, proposal, sigma_next)) / sigma_next
            proposal = x + (sigma_next - sigma) * (slope + slope_next) / 2
        x = proposal
    return x


def heun_evaluations(steps: int) -> int:
    """Network evaluations of `sample_heun` over `steps` steps that end in 0."""
    return 2 * steps - 1


@torch.no_grad()
def sample_ancestral(D: Denoiser, x: Tensor, sigmas: Tensor, rng: torch.Generator) -> Tensor:
    """Solve the reverse SDE from sigmas[0] down to sigmas[-1] by ancestral steps.

    x: (B, ...) at noise level sigmas[0]. Evaluates D n times for n steps.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x = ancestral_step(x, denoise(D, x, sigma), sigma, sigma_next, rng)
    return x


def ancestral_step(x_t: Tensor, x_0: Tensor, sigma: float, sigma_next: float, rng: torch.Generator) -> Tensor:
    """From x_t at level sigma and the denoiser's estimate x_0 to a sample at the lower level sigma_next, 0 included.

    The sample is from N(x_0 + r (x_t - x_0), sigma_next^2 (1 - r) I) with r = sigma_next^2 / sigma^2: the exact
    posterior of the next state (Ho et al. 2020, eqs. 6 and 7, for x_t = x_0 + sigma eps), with D(x_t, sigma) in the
    place of x_0. It tends to the reverse SDE as the levels get closer. Other methods add a drift or a condition to it.
    """
    r = (sigma_next / sigma) ** 2
    return x_0 + r * (x_t - x_0) + sigma_next * (1 - r) ** 0.5 * noise_like(x_t, rng)
