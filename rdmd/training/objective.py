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


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
