"""The training loop: steps, curves, sample grids, checkpoints, a clean stop."""

import math
import time
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from rdmd import config
from rdmd.errors import UserError
from rdmd.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from rdmd.training.folder import Point, RunFolder, curve_line
from rdmd.training.objective import Objective
from rdmd.training.preview import save_preview
from rdmd.training.random import StepRandom, derived_seed, seed_global
from rdmd.training.stop import StopRequest

# Logged by objectives that draw noise levels, for the message about a non-finite value; not kept in the curves.
WORST_SIGMA = "worst_sigma"


@dataclass
class LoggedSteps:
    """Scalars of the steps since the last line of the curves, left on the device until they are asked for."""

    first: int
    rows: list[dict[str, Tensor]] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """Means over the steps, in one transfer. Raises UserError at the first non-finite value."""
        names = list(self.rows[0])
        table = torch.stack([torch.stack([row[name].float() for name in names]) for row in self.rows]).cpu()
        finite = table.isfinite().all(dim=1)
        if not finite.all():
            bad = int(finite.logical_not().nonzero()[0])
            name = names[int(table[bad].isfinite().logical_not().nonzero()[0])]
            worst = ""
            if WORST_SIGMA in names:
                worst = f" (largest error at sigma {table[bad, names.index(WORST_SIGMA)].item():.3g})"
            raise UserError(f"step {self.first + bad}: {name} is not finite{worst}; lower the learning rates in "
                            "params.yaml, or set launch.precision to float32.")
        means = dict(zip(names, table.mean(dim=0).tolist(), strict=True))
        means.pop(WORST_SIGMA, None)
        return means


def train(
    objective: Objective,
    cadence: config.Cadence,
    folder: RunFolder,
    seed: int,
    accelerator: Accelerator,
    stop: StopRequest,
) -> Progress:
    """Take the remaining steps of a run, from its checkpoint if there is one, up to `cadence.steps`.

    Stops early, after a checkpoint, when `stop` is set: the returned progress then says how far it came. Raises
    UserError with step, sigma and name when a value is not finite; the last checkpoint stays.
    """
    progress = load_checkpoint(folder.checkpoint, objective)
    main = accelerator.is_main_process
    if main:
        folder.forget_curves_after(progress.steps)
    accelerator.wait_for_everyone()
    begun = time.monotonic() - progress.seconds
    logged = LoggedSteps(first=progress.steps)
    t = progress.steps
    while t < cadence.steps:
        # Dropout draws from the global generator, so that is a function of the step as well.
        seed_global(derived_seed(seed, accelerator.process_index, t, "global"), accelerator.device)
        logged.rows.append(objective.step(t, StepRandom(seed, accelerator.process_index, t, accelerator.device)))
        t += 1
        last = t == cadence.steps
        stopping = not last and stop.requested(accelerator, t)
        due = last or stopping or t % cadence.checkpoint_every == 0
        if due or t % cadence.log_every == 0:
            means = logged.means()
            logged = LoggedSteps(first=t)
            if main:
                with folder.curves_file.open("a", encoding="utf-8") as file:
                    file.write(curve_line(Point(t, means)))
        if due and main:
            save_checkpoint(folder.checkpoint, objective, Progress(t, time.monotonic() - begun))
        if main and cadence.sample_every and (last or t % cadence.sample_every == 0):
            save_preview(objective.samples(), folder.samples / f"{t:0{_digits(cadence.steps)}d}.png")
        if stopping:
            break
    return Progress(t, time.monotonic() - begun)


def _digits(steps: int) -> int:
    return math.floor(math.log10(steps)) + 1
