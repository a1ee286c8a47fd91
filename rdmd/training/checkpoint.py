"""Checkpoints: everything that the next step depends on, in one file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.training.objective import Objective

FORMAT = 2


@dataclass(frozen=True)
class Best:
    """The weights of the least distance so far, their step, and how many evaluations came since."""

    step: int
    distance: float
    weights: dict[str, Tensor]
    since: int = 0


def best_of(best: Best | None, step: int, distance: float, weights: Mapping[str, Tensor]) -> Best:
    """The best after one more evaluation: a copy of `weights` on the CPU if its distance is less, else as before."""
    if best is None or distance < best.distance:
        return Best(step, distance, {name: value.detach().to("cpu", copy=True) for name, value in weights.items()})
    return replace(best, since=best.since + 1)


@dataclass(frozen=True)
class Progress:
    """Optimizer steps taken so far, the seconds that they took, and the best evaluation. `finished`: no step is left,
    because all are taken or because evaluations ended the run."""

    steps: int = 0
    seconds: float = 0.0
    best: Best | None = None
    finished: bool = False


def save_checkpoint(path: Path, objective: Objective, progress: Progress) -> None:
    """Write modules, optimizers, the average and the progress. The random state is a function of the step."""
    state = {
        "format": FORMAT,
        "steps": progress.steps,
        "seconds": progress.seconds,
        "best": progress.best and vars(progress.best),
        "finished": progress.finished,
        "modules": {name: module.state_dict() for name, module in objective.modules.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in objective.optimizers.items()},
        "average": objective.ema.averaged.state_dict(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, objective: Objective) -> Progress:
    """Restore an objective from the checkpoint at `path`, if there is one.

    Raises UserError if the file is damaged.
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
            _match_layout(optimizer)
        objective.ema.averaged.load_state_dict(state["average"])
        best = state["best"] and Best(**state["best"])
        return Progress(state["steps"], state["seconds"], best, state["finished"])
    except Exception as error:
        raise UserError(
            f"{path} cannot be resumed from ({type(error).__name__}); delete it and repeat the command "
            "to train this run anew."
        ) from error


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their weights. A checkpoint from another device may have others, but a fused kernel
    reads both in the order of memory."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state[weight]
            for name, value in state.items():
                if value.shape == weight.shape and value.stride() != weight.stride():
                    state[name] = torch.empty_like(weight).copy_(value)
