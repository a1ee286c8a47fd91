"""SDEdit (Meng et al. 2022), and the noise levels of all diffusion baselines (Karras et al. 2022, table 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.diffusion.loss import Denoiser, noise_like
from rdmd.diffusion.samplers import heun_evaluations, karras_sigmas, sample_ancestral, sample_heun

SIGMA_MIN = 0.002
SIGMA_MAX = 80.0


def down_from(sigma_0: float, steps: int) -> Tensor:
    """The levels of `steps` steps from sigma_0 to 0: shape (steps + 1,).

    Raises ValueError unless sigma_0 > 0 and steps >= 1.
    """
    if sigma_0 <= 0 or steps < 1:
        raise ValueError(f"needs sigma_0 > 0 and steps >= 1, got {sigma_0} and {steps}")
    return karras_sigmas(steps, min(SIGMA_MIN, sigma_0 / 2), sigma_0)


@dataclass(frozen=True)
class SDEdit:
    """y = the probability-flow ODE from x + sigma_0 eps at sigma_0 down to 0, by Heun's method in `steps` steps.

    A small sigma_0 keeps the source, a large one forgets it. SDEdit trains nothing.
    """

    teacher: Denoiser
    sigma_0: float
    steps: int

    @property
    def nfe(self) -> int:
        """Evaluations of the teacher a sample."""
        return heun_evaluations(self.steps)

    @torch.no_grad()
    def __call__(self, source: Tensor, rng: torch.Generator) -> Tensor:
        """(B, ...) source -> (B, ...) translation."""
        noised = source + self.sigma_0 * noise_like(source, rng)
        return sample_heun(self.teacher, noised, down_from(self.sigma_0, self.steps))


@dataclass(frozen=True)
class SDEditSDE:
    """The same with the reverse SDE, as in the paper's algorithm 1, by `steps` ancestral steps.

    An ancestral step is of first order and costs one evaluation, so at equal cost it takes twice the steps of `SDEdit`.
    """

    teacher: Denoiser
    sigma_0: float
    steps: int

    @property
    def nfe(self) -> int:
        """Evaluations of the teacher a sample."""
        return self.steps

    @torch.no_grad()
    def __call__(self, source: Tensor, rng: torch.Generator) -> Tensor:
        """(B, ...) source -> (B, ...) translation."""
        noised = source + self.sigma_0 * noise_like(source, rng)
        return sample_ancestral(self.teacher, noised, down_from(self.sigma_0, self.steps), rng)
