"""Checkpoints: everything that the next step depends on, in one file, whole or absent."""

from dataclasses import dataclass
from pathlib import Path

import torch

from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.training.objective import Objective

FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """How far a run is: optimiser steps taken and seconds spent on them."""

    steps: int = 0
    seconds: float = 0.0


def save_checkpoint(path: Path, objective: Objective, progress: Progress) -> None:
    """Write modules, optimizers, the average and the progress. No random state: it is derived from the step."""
    state = {
        "format": FORMAT,
        "steps": progress.steps,
        "seconds": progress.seconds,
        "modules": {name: module.state_dict() for name, module in objective.modules.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in objective.optimizers.items()},
        "average": objective.ema.averaged.state_dict(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, objective: Objective) -> Progress:
    """Restore an objective from `path`, or leave it as it is where there is no checkpoint.

    Raises UserError if the file is damaged; its remedy is to delete it, which starts the run anew.
    """
    if not path.exists():
        return Progress()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise ValueError("another format")
        for name, module in objective.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in objective.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            _lay_out_as_the_weights(optimizer)
        objective.ema.averaged.load_state_dict(state["average"])
        return Progress(steps=state["steps"], seconds=state["seconds"])
    except Exception as error:
        raise UserError(
            f"{path} cannot be resumed from ({type(error).__name__}); delete it and repeat the command "
            "to train this run anew."
        ) from error


def _lay_out_as_the_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their weights: a checkpoint from another device may have others, and a fused kernel
    goes through both in the order of memory."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state[weight]
            for name, value in state.items():
                if value.shape == weight.shape and value.stride() != weight.stride():
                    state[name] = torch.empty_like(weight).copy_(value)
