"""The training loop: steps from the last checkpoint on, curves, checkpoints, preview images, and a stop on request."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw
from torch import Tensor

from rdmd.data.sampling import StepRandom, derived_seed, seed_global
from rdmd.data.transforms import as_rgb, to_uint8
from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.training.checkpoint import Best, Progress, best_of, load_checkpoint, save_checkpoint
from rdmd.training.objective import Objective
from rdmd.training.run_config import TrainingRun
from rdmd.training.run_folder import WATCH_STDIN, Point, RunFolder, curve_line


@dataclass(frozen=True)
class Measured:
    """One evaluation: the values to log, and the distance to the target by which evaluations are compared."""

    values: dict[str, float]
    distance: float


@dataclass(frozen=True)
class Evaluations:
    """`measure` is called after every `every` steps and after the last one. With `patience` the run ends after so many
    evaluations in a row without a new best."""

    every: int
    patience: int | None
    measure: Callable[[], Measured]

    def end(self, best: Best | None) -> bool:
        """Whether the patience is used up."""
        return self.patience is not None and best is not None and best.since >= self.patience


def train(
    objective: Objective,
    run: TrainingRun,
    folder: RunFolder,
    accelerator: Accelerator,
    stop: "StopRequest",
    follow: Callable[[list[Point]], None] = lambda points: None,
    evaluations: Evaluations | None = None,
) -> Progress:
    """Take the remaining steps of a run, from its checkpoint if there is one. Returns how far it came: to its end, or
    less far where `stop` ended it, after a checkpoint. The end is the last step, or where `evaluations` end the run.

    Raises UserError with step, sigma and name when a value is not finite; the last checkpoint stays. `follow` takes
    each new point of the curves.
    """
    cadence, rank, seed = run.settings, accelerator.process_index, objective.seed
    progress = load_checkpoint(folder.checkpoint, objective)
    main = accelerator.is_main_process
    if main:
        folder.forget_curves_after(progress.steps)
    accelerator.wait_for_everyone()
    start = time.monotonic() - progress.seconds
    t, best, finished = progress.steps, progress.best, progress.finished
    logged = LoggedSteps(first=t)
    while not finished:
        # Dropout uses the global generator, whose state thus is a function of the step too.
        seed_global(derived_seed(seed, rank, t, "global"), accelerator.device)
        logged.rows.append(objective.step(t, StepRandom(seed, rank, t, accelerator.device)))
        t += 1
        finished = t == cadence.steps
        stopping = not finished and stop.requested(accelerator, t)
        evaluating = evaluations is not None and (finished or t % evaluations.every == 0)
        due = finished or stopping or t % cadence.checkpoint_every == 0
        if due or evaluating or t % cadence.log_every == 0:
            values = logged.means()
            logged = LoggedSteps(first=t)
            if evaluations is not None and evaluating:
                if main:
                    begun = time.monotonic()
                    measured = evaluations.measure()
                    values |= measured.values
                    best = best_of(best, t, measured.distance, objective.kept().state_dict())
                    start += time.monotonic() - begun
                finished |= any_process(accelerator, main and evaluations.end(best))
            if main:
                with folder.curves_file.open("a", encoding="utf-8") as file:
                    file.write(curve_line(Point(t, values)))
                follow([Point(t, values)])
        progress = Progress(t, time.monotonic() - start, best, finished)
        # A run that is killed between the two goes on from the checkpoint before and makes the preview again.
        if main and cadence.sample_every and (finished or t % cadence.sample_every == 0):
            save_preview(
                tuple(map(objective.decoded, objective.samples())),
                folder.samples / f"{t:0{len(str(cadence.steps))}d}.png",
            )
        if (due or finished) and main:
            save_checkpoint(folder.checkpoint, objective, progress)
        if stopping:
            break
    return progress


def any_process(accelerator: Accelerator, here: bool) -> bool:
    """Whether `here` is true on any process: the same answer on all of them."""
    if accelerator.num_processes == 1:
        return here
    count = torch.tensor([float(here)], device=accelerator.device)
    return bool(accelerator.reduce(count, reduction="sum").item() > 0)


# The sigma of a step's largest loss: for the message about a non-finite value, not for the curves.
WORST_SIGMA = "worst_sigma"


@dataclass
class LoggedSteps:
    """Scalars of the steps since the last line of the curves. They stay on the device until `means`."""

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
            raise UserError(
                f"step {self.first + bad}: {name} is not finite{worst}; lower the learning rates in "
                "params.yaml, or set launch.precision to float32."
            )
        means = dict(zip(names, table.mean(dim=0).tolist(), strict=True))
        means.pop(WORST_SIGMA, None)
        return means


# Several processes must stop at the same step, so they exchange the request, but not at every step.
AGREE_EVERY = 10


class StopRequest:
    """A request to stop the run: SIGINT, SIGTERM, or the end of the launcher."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> "StopRequest":
        """Handle the signals, and watch standard input if the launcher asks for it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._event.set())
        if os.environ.get(WATCH_STDIN):
            threading.Thread(target=self._until_closed, daemon=True).start()
        return self

    def _until_closed(self) -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        self._event.set()

    def requested(self, accelerator: Accelerator, t: int) -> bool:
        """Whether to stop after step t: the same answer on every process."""
        if accelerator.num_processes > 1 and t % AGREE_EVERY:
            return False
        return any_process(accelerator, self._event.is_set())


TILE = 64
COLUMNS = 8
CANVAS = 384
DOTS = ("#b0b0b0", "#1f4e9c")


def save_preview(batches: tuple[Tensor, ...], path: Path) -> None:
    """Write a PNG of batches: images (B, C, H, W) in [-1, 1] as tiles, eight per row, and the rows of the batches in
    turn; points (B, 2) as dots, with later batches over earlier ones."""
    preview = _tiles(batches) if batches[0].ndim == 4 else _dots(batches)
    with replacing(path) as temporary:
        preview.save(temporary, format="PNG")


def _tiles(batches: tuple[Tensor, ...]) -> Image.Image:
    size = max(1, TILE // batches[0].shape[-1])
    n = len(batches[0])
    rows = []
    for start in range(0, n, COLUMNS):
        for batch in batches:
            chosen = as_rgb(to_uint8(batch[start : start + COLUMNS]).cpu())
            blank = torch.zeros(COLUMNS - len(chosen), *chosen.shape[1:], dtype=torch.uint8)
            rows.append(torch.cat([*torch.cat([chosen, blank])], dim=2))
    grid = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    return Image.fromarray(np.repeat(np.repeat(grid, size, axis=0), size, axis=1))


def _dots(batches: tuple[Tensor, ...]) -> Image.Image:
    reach = max(1.0, math.ceil(max(batch.abs().max().item() for batch in batches)))
    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
    draw = ImageDraw.Draw(canvas)
    for batch, colour in zip(batches, DOTS, strict=False):
        for x, y in ((batch.cpu().double() / reach + 1) * CANVAS / 2).tolist():
            draw.ellipse((x - 2, CANVAS - y - 2, x + 2, CANVAS - y + 2), fill=colour)
    return canvas
