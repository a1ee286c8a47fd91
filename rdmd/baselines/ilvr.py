"""ILVR (Choi et al. 2021)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rdmd.baselines.low_pass import low_pass
from rdmd.baselines.sdedit import SIGMA_MAX, down_from
from rdmd.diffusion.loss import Denoiser, noise_like
from rdmd.diffusion.samplers import ancestral_step, denoise


@dataclass(frozen=True)
class ILVR:
    """x_80 = 80 eps, then `steps` ancestral steps, each into a level sigma >= sigma_stop followed by

        x_sigma <- x_sigma - phi_N(x_sigma) + phi_N(x + sigma eps'),    eps' fresh (algorithm 1),

    where phi_N is the cubic `low_pass` of the public code.

    A large N = `factor` forgets the source; a large sigma_stop leaves the last steps to the teacher, and 0 conditions
    the output itself. ILVR trains nothing. It is for images alone: points have no low-pass part.

    Raises ValueError if factor < 2, sigma_stop is not in [0, 80), or there is no step.
    """

    teacher: Denoiser
    factor: int
    sigma_stop: float
    steps: int

    def __post_init__(self) -> None:
        if self.factor < 2 or not 0 <= self.sigma_stop < SIGMA_MAX or self.steps < 1:
            raise ValueError(
                f"ILVR needs factor >= 2, 0 <= sigma_stop < {SIGMA_MAX:g} and steps >= 1, "
                f"got {self.factor}, {self.sigma_stop} and {self.steps}"
            )

    @property
    def nfe(self) -> int:
        """Evaluations of the teacher a sample."""
        return self.steps

    @torch.no_grad()
    def __call__(self, source: Tensor, rng: torch.Generator) -> Tensor:
        """(B, C, H, W) source -> (B, C, H, W) translation. Raises ValueError on points, and if `factor` does not
        divide H and W."""
        if source.ndim != 4:
            raise ValueError(f"ILVR is for images (B, C, H, W), got the shape {tuple(source.shape)}")
        x = SIGMA_MAX * noise_like(source, rng)
        for sigma, sigma_next in pairwise(down_from(SIGMA_MAX, self.steps).tolist()):
            x = ancestral_step(x, denoise(self.teacher, x, sigma), sigma, sigma_next, rng)
            if sigma_next >= self.sigma_stop:
                source_t = source + sigma_next * noise_like(source, rng)
                x = x + low_pass(source_t - x, self.factor, "cubic")
        return x
