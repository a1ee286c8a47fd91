"""The noise levels that the diffusion baselines step through: those of Karras et al. 2022, table 1."""

from torch import Tensor

from rdmd.diffusion.samplers import karras_sigmas

SIGMA_MIN = 0.002
SIGMA_MAX = 80.0


def down_from(sigma_0: float, steps: int) -> Tensor:
    """The levels of `steps` steps from sigma_0 to 0: shape (steps + 1,).

    Raises ValueError unless sigma_0 > 0 and steps >= 1.
    """
    if sigma_0 <= 0 or steps < 1:
        raise ValueError(f"needs sigma_0 > 0 and steps >= 1, got {sigma_0} and {steps}")
    return karras_sigmas(steps, min(SIGMA_MIN, sigma_0 / 2), sigma_0)
