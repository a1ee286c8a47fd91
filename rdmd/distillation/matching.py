"""Distribution matching: the gradient of int omega_t KL(p_t^G || p_t^T) dt with respect to the generator's output.

It is E omega_t (s_fake - s_teacher)(G + sigma_t eps). With s = (D - x_t) / sigma^2 the difference of scores is
(D_fake - D_teacher) / sigma^2, because the x_t cancel (DMD, Yin et al. 2024, eq. 7; RDMD, eq. 8).
"""

from collections.abc import Callable

from torch import Tensor

from rdmd.diffusion.loss import like, mean_over_dimensions

# (fake_x0, teacher_x0, x_0, sigma) -> gradient. fake_x0 = D_fake(x_t) and teacher_x0 = D_teacher(x_t) are estimates of
# x_0; these and the gradient are (B, ...), and sigma is (B,).
Weighting = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# The per-sample normaliser divides by an error that vanishes for a perfect sample.
SMALLEST_ERROR = 1e-4


def unscaled(fake_x0: Tensor, teacher_x0: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """omega = sigma^2: the gradient is D_fake - D_teacher, so the weight is on large sigma."""
    return fake_x0 - teacher_x0


def inverse_sigma(fake_x0: Tensor, teacher_x0: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """omega = sigma: the gradient is (D_fake - D_teacher) / sigma."""
    return (fake_x0 - teacher_x0) / like(sigma, x_0)


def inverse_sigma_squared(fake_x0: Tensor, teacher_x0: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """omega = 1: the difference of scores."""
    return (fake_x0 - teacher_x0) / like(sigma, x_0).square()


def normalised(fake_x0: Tensor, teacher_x0: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
    """The gradient divided by each sample's mean |x_0 - D_teacher(x_t)| (public DMD code). The divisor depends on x_t,
    so it is not a weight omega_t in the sense of the theorem."""
    error = mean_over_dimensions((x_0 - teacher_x0).abs()).clamp_min(SMALLEST_ERROR)
    return (fake_x0 - teacher_x0) / like(error, x_0)


WEIGHTINGS: dict[str, Weighting] = {
    "unscaled": unscaled,
    "inverse_sigma": inverse_sigma,
    "inverse_sigma_squared": inverse_sigma_squared,
    "normalised": normalised,
}


def matching_surrogate(generated: Tensor, gradient: Tensor) -> Tensor:
    """Per-sample values (B,) whose derivative with respect to `generated` is `gradient` / dimensions.

    `gradient` is a constant here. The value means nothing; only its derivative does. The mean over dimensions is the
    transport cost's reduction, so that lambda means the same at every resolution.
    """
    return mean_over_dimensions(gradient.detach() * generated)
