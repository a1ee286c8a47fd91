"""The one-step generator."""

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """G(x) = D(x, sigma_init): a denoiser read at one fixed noise level, which takes the clean source sample.

    It starts as a copy of the teacher (RDMD, section 3). One network evaluation a sample.
    """

    nfe = 1

    def __init__(self, denoiser: nn.Module, sigma_init: float) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sigma_init = sigma_init

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) source -> (B, ...) translation, not clamped."""
        return self.denoiser(x, torch.full((len(x),), self.sigma_init, device=x.device))
