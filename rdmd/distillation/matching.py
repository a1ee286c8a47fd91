"""Distribution matching: the gradient of int omega_t KL(p_t^G || p_t^T) dt with respect to the generator's output.

grad_G = E omega_t (s_fake - s_real)(G + sigma_t eps), and s = (D - x_t) / sigma^2 turns the difference of scores into
(D_fake - D_real) / sigma^2: the x_t cancels (DMD, Yin et al. 2024, eq. 7; RDMD, eq. 8).
"""

from collections.abc import Callable

from torch import Tensor

from rdmd.diffusion.loss import like, mean_over_dimensions

# (D_fake(x_t), D_real(x_t), x_0, sigma) -> gradient, of x_0's shape
Weighting = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# The per-sample normaliser divides by an error that vanishes for a perfect sample.
SMALLEST_ERROR = 1e-4


def unscaled(d_fake: Tensor, d_real: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """omega = sigma^2: the gradient is D_fake - D_real, so the weight sits on large sigma."""
    return d_fake - d_real


def inverse_sigma(d_fake: Tensor, d_real: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """omega = sigma: the gradient is (D_fake - D_real) / sigma."""
    return (d_fake - d_real) / like(sigma, x_0)


def inverse_sigma_squared(d_fake: Tensor, d_real: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """omega = 1: the plain difference of scores."""
    return (d_fake - d_real) / like(sigma, x_0).square()


def normalised(d_fake: Tensor, d_real: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """Divided by mean |x_0 - D_real(x_t)| of the sample (public DMD code). It depends on x_t, so it is not an omega_t
    in the sense of the theorem."""
    error = mean_over_dimensions((x_0 - d_real).abs()).clamp_min(SMALLEST_ERROR)
    return (d_fake - d_real) / like(error, x_0)


WEIGHTINGS: dict[str, Weighting] = {
    "unscaled": unscaled,
    "inverse_sigma": inverse_sigma,
    "inverse_sigma_squared": inverse_sigma_squared,
    "normalised": normalised,
}


def matching_surrogate(generated: Tensor, gradient: Tensor) -> Tensor:
    """A per-sample value (B,) whose derivative with respect to `generated` is `gradient` / dimensions.

    `gradient` is taken as constant. The value itself means nothing; only its derivative does. The mean over dimensions
    is the transport cost's reduction, so that lambda means the same at every resolution.
    """
    return mean_over_dimensions(gradient.detach() * generated)
