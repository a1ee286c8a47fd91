"""SDEdit (Meng et al. 2022): noise the source to sigma_0 and denoise it with the target's teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.baselines.levels import down_from
from rdmd.diffusion.loss import Denoiser, noise_like
from rdmd.diffusion.samplers import ancestral, heun, heun_evaluations


@dataclass(frozen=True)
class SDEdit:
    """y = the probability-flow ODE from x + sigma_0 eps at sigma_0 down to 0, by Heun's method in `steps` steps.

    Its dial is sigma_0: small keeps the source, large forgets it. It trains nothing of its own.
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
        return heun(self.teacher, noised, down_from(self.sigma_0, self.steps))


@dataclass(frozen=True)
class SDEditSDE:
    """The same with the reverse SDE, as in the paper's algorithm 1, by `steps` ancestral steps.

    An ancestral step is of first order and costs one evaluation: at equal cost it takes twice the steps of `SDEdit`.
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
        return ancestral(self.teacher, noised, down_from(self.sigma_0, self.steps), rng)
