"""What the loop asks of a training objective."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from rdmd.training.ema import EMA
from rdmd.training.random import StepRandom


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
