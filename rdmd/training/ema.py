"""Exponential moving average of weights."""

import copy

import torch
from torch import nn


class EMA:
    """Keeps `averaged`, a copy of a module whose weights follow it: w <- d w + (1 - d) w_now.

    The decay d ramps up as min(decay, (1 + t) / (10 + t)) over updates t, so that the start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.averaged = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self._followed = list(module.parameters())
        self._weights = list(self.averaged.parameters())

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Move the average after optimiser step `t`, counted from 0."""
        decay = min(self.decay, (1 + t) / (10 + t))
        torch._foreach_lerp_(self._weights, self._followed, 1 - decay)
