"""Exponential moving average of weights."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor, nn

from rdmd.data.sampling import StepRandom


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


# share of the steps taken, 0 to 1 -> factor of the learning rate, 1 to 0
Decay = Callable[[float], float]


def constant(taken: float) -> float:
    """1 throughout."""
    return 1.0


def linear(taken: float) -> float:
    """1 - taken."""
    return 1.0 - taken


def cosine(taken: float) -> float:
    """(1 + cos(pi taken)) / 2 (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return (1.0 + math.cos(math.pi * taken)) / 2.0


DECAYS: dict[str, Decay] = {"constant": constant, "linear": linear, "cosine": cosine}


def lr_factor(t: int, steps: int, warmup: int, decay: str) -> float:
    """The factor of the learning rate at optimiser step t of `steps`, both counted from 0: it rises linearly over the
    first `warmup` steps, and over the whole run follows the decay of that name."""
    return min(1.0, (t + 1) / max(1, warmup)) * DECAYS[decay](t / steps)


@dataclass(frozen=True)
class NoisyBatch:
    """Samples x (B, ...), a noise level sigma (B,) for each, and standard normal noise eps (B, ...); z (B, ...) is the
    noise that a generator reads x with, if it does."""

    x: Tensor
    sigma: Tensor
    eps: Tensor
    z: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def parts(self, n: int) -> list["NoisyBatch"]:
        """The batch in at most n parts of equal size, but for the last."""
        if n == 1:
            return [self]
        x = self.x.chunk(n)
        z = repeat(None, len(x)) if self.z is None else self.z.chunk(n)
        return [NoisyBatch(*part) for part in zip(x, self.sigma.chunk(n), self.eps.chunk(n), z, strict=True)]


class Objective(Protocol):
    """One optimiser step of something that can be checkpointed.

    `modules` and `optimizers` are what a checkpoint holds beside the average; `ema.averaged` is kept in the end.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    ema: EMA

    def step(self, t: int, random: StepRandom) -> dict[str, Tensor]:
        """Take optimiser step `t` (from 0). Returns scalars to log, still on the device."""

    def samples(self) -> tuple[Tensor, ...]:
        """Batches to look at, side by side: sources first if there are any, each in the range that networks see."""


def adam(module: nn.Module, lr: float, beta1: float) -> torch.optim.Adam:
    """Adam with beta2 = 0.999 as one kernel over all weights.

    It is not wrapped by accelerate, whose wrapper scales losses for fp16, which is not used here, and looks for other
    packages on disk at every step.
    """
    return torch.optim.Adam(module.parameters(), lr=lr, betas=(beta1, 0.999), fused=True)


def at_largest(values: Tensor, of: Tensor) -> Tensor:
    """The entry of `of` (B,) where `values` (B,) is largest, as a scalar on the device. Indexing with a scalar would
    make the host wait for it."""
    return of.index_select(0, values.argmax(dim=0, keepdim=True)).squeeze(0)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
