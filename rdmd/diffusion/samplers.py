"""Samplers as pure functions of a denoiser: D(x_t, sigma) -> x_0 estimate; x_t = x_0 + sigma eps throughout."""

from itertools import pairwise

import torch
from torch import Tensor

from rdmd.diffusion.loss import Denoiser, like, noise_like


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """The `steps` noise levels from sigma_max down to sigma_min, then 0: shape (steps + 1,), float64
    (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (top + ramp * (bottom - top)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def sample_heun(D: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Integrate the probability-flow ODE dx/dsigma = (x - D(x, sigma)) / sigma from sigmas[0] to sigmas[-1] by
    Heun's second-order method (Karras et al. 2022, algorithm 1), with an Euler step into 0.

    x: (B, ...) at noise level sigmas[0]. Evaluates D 2n - 1 times for n steps that end in 0.
    """
    for now, then in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        slope = (x - D(x, x.new_full((len(x),), now))) / now
        proposal = x + (then - now) * slope
        if then > 0:
            slope_then = (proposal - D(proposal, x.new_full((len(x),), then))) / then
            proposal = x + (then - now) * (slope + slope_then) / 2
        x = proposal
    return x


def heun_evaluations(steps: int) -> int:
    """Network evaluations of `sample_heun` over `steps` steps that end in 0."""
    return 2 * steps - 1


def score(D: Denoiser, x_t: Tensor, sigma: Tensor) -> Tensor:
    """grad log p_t(x_t) = (D(x_t, sigma) - x_t) / sigma^2 (Tweedie)."""
    return (D(x_t, sigma) - x_t) / like(sigma, x_t).square()


def ancestral_step(D: Denoiser, x_t: Tensor, now: float, then: float, rng: torch.Generator) -> Tensor:
    """x_t at noise level `now` -> a draw at the lower level `then`, 0 included.

    x_then ~ N(D + r (x_t - D), then^2 (1 - r) I) with r = then^2 / now^2: the exact p(x_then | x_t, x_0) with D for x_0
    (Ho et al. 2020, eqs. 6 and 7, written for x_t = x_0 + sigma eps). It is a step of the reverse SDE, whose law it
    tends to as the levels close up. Evaluates D once. A method adds a drift to the result, or puts a condition on it.
    """
    r = (then / now) ** 2
    x_0 = D(x_t, x_t.new_full((len(x_t),), now))
    return x_0 + r * (x_t - x_0) + then * (1 - r) ** 0.5 * noise_like(x_t, rng)


def sample_ancestral(D: Denoiser, x: Tensor, sigmas: Tensor, rng: torch.Generator) -> Tensor:
    """Solve the reverse SDE from sigmas[0] down to sigmas[-1] by `ancestral_step`.

    x: (B, ...) at noise level sigmas[0]. Evaluates D n times for n steps.
    """
    for now, then in pairwise(sigmas.tolist()):
        x = ancestral_step(D, x, now, then, rng)
    return x
