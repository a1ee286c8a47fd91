"""DDIB, dual diffusion implicit bridges (Su et al. 2023): the source's teacher encodes, the target's decodes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rdmd.baselines.sdedit import SIGMA_MAX, down_from
from rdmd.diffusion.loss import Denoiser
from rdmd.diffusion.samplers import sample_heun


@dataclass(frozen=True)
class DDIB:
    """x_80 = the source teacher's probability-flow ODE from x at 0 up to 80; y = the target teacher's, from x_80 down
    to 0. Both by Heun's method on the `steps` Karras levels (algorithm 1). It is deterministic, and `steps` is its only
    hyperparameter.

    x is taken as the state at sigma_min, which differs by O(sigma_min^2). `teacher` is the target's.

    Raises ValueError if there are fewer than two levels.
    """

    source_teacher: Denoiser
    teacher: Denoiser
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"DDIB needs steps >= 2, got {self.steps}")

    @property
    def nfe(self) -> int:
        """Evaluations of both teachers a sample: 2 (steps - 1) to encode, 2 steps - 1 to decode."""
        return 4 * self.steps - 3

    @torch.no_grad()
    def __call__(self, source: Tensor, rng: torch.Generator) -> Tensor:
        """(B, ...) source -> (B, ...) translation; `rng` is not used."""
        down = down_from(SIGMA_MAX, self.steps)
        latent = sample_heun(self.source_teacher, source, down[:-1].flip(0))
        return sample_heun(self.teacher, latent, down)
