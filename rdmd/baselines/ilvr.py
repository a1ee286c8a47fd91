"""The low-pass filter phi_N that ILVR and EGSDE keep of the source."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rdmd.baselines.sdedit import SIGMA_MAX, down_from
from rdmd.diffusion.loss import Denoiser, noise_like
from rdmd.diffusion.samplers import ancestral_step


def low_pass(x: Tensor, factor: int) -> Tensor:
    """phi_N: antialiased bicubic down-sampling by `factor`, then bicubic up-sampling to the old size.

    Linear, and constants pass unchanged. (B, C, H, W) -> the same shape; `factor` must divide H and W, or ValueError is
    raised. It is the filter of both public codes, and not quite a projection: phi(phi(x)) differs from phi(x) by a
    quarter of its size on white noise, and by nothing for factor = H = W. Points (B, d) have no frequencies: they pass
    whole.
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

    Its dials are N = `factor` (large forgets the source) and sigma_stop (large leaves the end to the teacher; 0 holds
    the output itself). It trains nothing of its own. For pictures only: points have no low-pass part.

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
            raise ValueError(f"ILVR is for pictures (B, C, H, W), got the shape {tuple(source.shape)}")
        x = SIGMA_MAX * noise_like(source, rng)
        for now, then in pairwise(down_from(SIGMA_MAX, self.steps).tolist()):
            x = ancestral_step(self.teacher, x, now, then, rng)
            if then >= self.sigma_stop:
                noised = source + then * noise_like(source, rng)
                x = x + low_pass(noised - x, self.factor)
        return x
