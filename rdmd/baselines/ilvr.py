"""ILVR (Choi et al. 2021), and its low-pass filter phi_N, which EGSDE uses too."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rdmd.baselines.sdedit import SIGMA_MAX, down_from
from rdmd.diffusion.loss import Denoiser, noise_like
from rdmd.diffusion.samplers import ancestral_step, denoise


def low_pass(x: Tensor, factor: int) -> Tensor:
    """phi_N: antialiased bicubic down-sampling by `factor`, then bicubic up-sampling to the old size.

    It is linear and keeps constants. (B, C, H, W) -> the same shape; raises ValueError unless `factor` divides H and W.
    It is the filter of both public codes, and only nearly a projection: on white noise phi(phi(x)) differs from phi(x)
    by a quarter of its size, and not at all for factor = H = W. Points (B, d) have no frequencies and stay unchanged.
    """
    if x.ndim == 2:
        return x
    height, width = x.shape[2:]
    if height % factor or width % factor:
        raise ValueError(f"the low-pass factor {factor} does not divide the size {height}x{width}")
    small = interpolate(x, size=(height // factor, width // factor), mode="bicubic", antialias=True)
    return interpolate(small, size=(height, width), mode="bicubic", antialias=True)


@dataclass(frozen=True)
class ILVR:
    """x_80 = 80 eps, then `steps` ancestral steps, each into a level sigma >= sigma_stop followed by

        x_sigma <- x_sigma - phi_N(x_sigma) + phi_N(x + sigma eps'),    eps' fresh (algorithm 1).

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
                x = x + low_pass(source_t - x, self.factor)
        return x
