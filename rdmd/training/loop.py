"""Small pictures of a run in progress: batches side by side, one PNG."""

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

from rdmd import config
from rdmd.data.sampling import StepRandom, derived_seed, seed_global
from rdmd.data.transforms import to_uint8
from rdmd.errors import UserError
from rdmd.files import replacing
from rdmd.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from rdmd.training.objective import Objective
from rdmd.training.run_folder import WATCH_STDIN, Point, RunFolder, curve_line

TILE = 64
COLUMNS = 8
CANVAS = 384
DOTS = ("#b0b0b0", "#1f4e9c")


def save_preview(batches: tuple[Tensor, ...], path: Path) -> None:
    """Write batches of images (B, 3, H, W) in [-1, 1] as rows of tiles, one batch below another per row of eight,
    or of points (B, 2) as dots, later batches over earlier ones."""
    picture = _tiles(batches) if batches[0].ndim == 4 else _dots(batches)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _tiles(batches: tuple[Tensor, ...]) -> Image.Image:
    size = max(1, TILE // batches[0].shape[-1])
    n = len(batches[0])
    rows = []
    for start in range(0, n, COLUMNS):
        for batch in batches:
            chosen = to_uint8(batch[start : start + COLUMNS]).cpu()
            blank = torch.zeros(COLUMNS - len(chosen), *chosen.shape[1:], dtype=torch.uint8)
            rows.append(torch.cat([*torch.cat([chosen, blank])], dim=2))
    grid = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    return Image.fromarray(np.repeat(np.repeat(grid, size, axis=0), size, axis=1))


def _dots(batches: tuple[Tensor, ...]) -> Image.Image:
    reach = max(1.0, math.ceil(max(batch.abs().max().item() for batch in batches)))
    picture = Image.new("RGB", (CANVAS, CANVAS), "white")
    draw = ImageDraw.Draw(picture)
    for batch, colour in zip(batches, DOTS, strict=False):
        for x, y in ((batch.cpu().double() / reach + 1) * CANVAS / 2).tolist():
            draw.ellipse((x - 2, CANVAS - y - 2, x + 2, CANVAS - y + 2), fill=colour)
    return picture


# With several processes all must stop at the same step, so they ask each other, but not at every step.
AGREE_EVERY = 10


class StopRequest:
    """True once SIGINT or SIGTERM came, or the launcher died."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def listen(self) -> "StopRequest":
        """Take over the signals, and watch standard input where the launcher asked for it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._asked.set())
        if os.environ.get(WATCH_STDIN):
            threading.Thread(target=self._until_closed, daemon=True).start()
        return self

    def _until_closed(self) -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        self._asked.set()

    def requested(self, accelerator: Accelerator, t: int) -> bool:
        """Whether to stop after step t: the same answer on every process."""
        if accelerator.num_processes == 1:
            return self._asked.is_set()
        if t % AGREE_EVERY:
            return False
        asked = torch.tensor([float(self._asked.is_set())], device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum").item() > 0)


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
            raise UserError(
                f"step {self.first + bad}: {name} is not finite{worst}; lower the learning rates in "
                "params.yaml, or set launch.precision to float32."
            )
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
    follow: Callable[[list[Point]], None] = lambda points: None,
) -> Progress:
    """Take the remaining steps of a run, from its checkpoint if there is one, up to `cadence.steps`.

    Stops early, after a checkpoint, when `stop` is set: the returned progress then says how far it came. Raises
    UserError with step, sigma and name when a value is not finite; the last checkpoint stays. `follow` takes each new
    point of the curves.
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
                follow([Point(t, means)])
        if due and main:
            save_checkpoint(folder.checkpoint, objective, Progress(t, time.monotonic() - begun))
        if main and cadence.sample_every and (last or t % cadence.sample_every == 0):
            save_preview(objective.samples(), folder.samples / f"{t:0{_digits(cadence.steps)}d}.png")
        if stopping:
            break
    return Progress(t, time.monotonic() - begun)


def _digits(steps: int) -> int:
    return math.floor(math.log10(steps)) + 1
