"""Time and memory of a distillation step against batch, resolution, parameters, lambdas and samples.

`python -m benchmarks.scale` measures; `--figure FILE.png` draws the newest record and needs matplotlib. One quantity
varies at a time, from a base that takes seconds on this device. Each point has its own process and so its own peak
memory: allocated memory on a GPU; on a CPU, resident memory beyond that before the first step, of which some 250 MiB
are libraries that the first step loads. Weights and images are random, float32.
"""

import argparse
import multiprocessing
import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.machine import default_device, peak_mib
from benchmarks.materials import accelerator_for, distill_run, write_images
from benchmarks.record import RESULTS, Record, record, say
from benchmarks.timing import interleaved
from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.data.view import DomainView
from rdmd.errors import UserError, reporting
from rdmd.files import replacing
from rdmd.pipeline.launch import gpu_count
from rdmd.training.distill import DistillObjective

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Images of a domain, unless their number varies.
FEW = 64


@dataclass(frozen=True)
class Point:
    """A distillation to time, and its place on an axis of the figure. `samples` images stay on the device."""

    axis: str
    value: int
    batch: int
    side: int
    channels: int
    mult: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    lambdas: int = 1
    samples: int = FEW

    @property
    def network(self) -> config.ImageNetwork:
        """A U-Net with attention at 16x16."""
        return config.ImageNetwork(
            kind="ddpmpp", model_channels=self.channels, channel_mult=list(self.mult), num_blocks=self.blocks,
            attn_resolutions=[16],
        )  # fmt: skip


CPU_BASE = Point("", 0, batch=2, side=32, channels=16)
GPU_BASE = Point("", 0, batch=32, side=64, channels=128, mult=(1, 2, 2, 2), blocks=4)
SAMPLES = (10**3, 10**4, 10**5, 10**6, 10**7)
RESOLUTIONS = (32, 64, 128, 256)
LAMBDAS = (1, 2, 4, 6)

# Axis of the figure: its label.
_COLUMNS = {
    "batch": "batch",
    "resolution": "side in pixels",
    "channels": "parameters in millions",
    "lambdas": "lambdas in turn",
    "samples": "training images",
}


def points(on_gpu: bool) -> list[Point]:
    """Every point, axis by axis, from small to large."""
    base = GPU_BASE if on_gpu else CPU_BASE
    batches = (1, 4, 16, 64, 256) if on_gpu else (1, 2, 4, 8, 16)
    channels = (32, 64, 128, 192) if on_gpu else (16, 32, 64, 96)
    single = replace(base, batch=4 if on_gpu else 1)
    # Ten million images of 8x8 need 2 GB.
    small = replace(base, side=8, channels=16, mult=(1, 2), blocks=1)
    return [
        *(replace(base, axis="batch", value=n, batch=n) for n in batches),
        *(replace(single, axis="resolution", value=side, side=side) for side in RESOLUTIONS),
        *(replace(base, axis="channels", value=n, channels=n) for n in channels),
        *(replace(base, axis="lambdas", value=n, lambdas=n) for n in LAMBDAS),
        *(replace(small, axis="samples", value=n, samples=n) for n in SAMPLES),
    ]


def main() -> None:
    """Measure and record, or draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the newest record instead")
    figure = parser.parse_args().figure
    if figure is not None:
        draw_newest(figure)
        return
    on_gpu = gpu_count() > 0
    # A fork shares the loaded libraries; CUDA does not work in a fork.
    processes = multiprocessing.get_context("spawn" if on_gpu else "fork")
    figures: dict[str, float] = {}
    for point in points(on_gpu):
        say(f"{point.axis} {point.value}")
        with processes.Pool(1) as pool:
            seconds, spread, mib, parameters = pool.apply(measure, (point,))
        name = f"{point.axis}_{point.value}"
        figures |= {f"{name}_seconds": seconds, f"{name}_seconds_iqr": spread, f"{name}_mib": mib}
        if point.axis == "channels":
            figures[f"{name}_parameters"] = parameters
    record("scale", figures, default_device())


def measure(point: Point) -> tuple[float, float, float, int]:
    """Seconds of a step (of all lambdas in turn), their interquartile range, peak MiB, parameters of a network."""
    device = default_device()
    before = peak_mib(device)
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        shards = write_images(Path(name) / "source", FEW, point.side)
        run = distill_run(
            Path(name), point.network, shards, point.side, point.batch,
        )  # fmt: skip
        objectives = [DistillObjective(run, accelerator_for(run, device)) for _ in range(point.lambdas)]
        if point.samples != FEW:
            images = torch.randint(256, (point.samples, point.side, point.side, 3), dtype=torch.uint8, device=device)
            for objective in objectives:
                objective.source = DomainView(images, device)
        done = 0

        def step() -> None:
            nonlocal done
            for objective in objectives:
                objective.step(done, StepRandom(0, 0, done, device))
            done += 1

        calls = 10 if device.type == "cuda" or point.side == 8 else 1
        timing = interleaved({"step": step}, device, rounds=3, calls=calls)["step"].spread
        parameters = sum(weight.numel() for weight in objectives[0].teacher.parameters())
        return timing.median, timing.high - timing.low, peak_mib(device) - before, parameters


def draw_newest(file: Path) -> None:
    """Write a PNG of the newest record. Raises UserError if there is none."""
    records = sorted(
        (Record.model_validate_json(path.read_text(encoding="utf-8")) for path in RESULTS.glob("scale.*.json")),
        key=lambda record: record.date,
    )
    if not records:
        raise UserError(f"{RESULTS} holds no record of scale; make one with `python -m benchmarks.scale`.")
    with replacing(file) as temporary:
        draw(records[-1], temporary)


def draw(record: Record, file: Path) -> None:
    """Write a PNG of one record."""
    import matplotlib
    from matplotlib import pyplot
    from matplotlib.ticker import NullLocator

    matplotlib.use("Agg")

    figure, rows = pyplot.subplots(
        2, len(_COLUMNS), figsize=(13, 5.4), layout="constrained", sharex="col", sharey="row"
    )
    for column, (axis, label) in enumerate(_COLUMNS.items()):
        for row, unit in enumerate(("seconds", "mib")):
            ax = rows[row, column]
            _line(ax, record, axis, unit)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.grid(True, which="major", color="0.88", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            if row == 1:
                ax.set_xlabel(label)
                ax.yaxis.set_major_formatter("{x:g}")
                ax.yaxis.set_minor_formatter("{x:g}")
            if axis in ("batch", "resolution", "lambdas"):
                values = _values(record, axis)
                ax.set_xticks(values, [f"{value:g}" for value in values])
                ax.xaxis.set_minor_locator(NullLocator())
    rows[0, 0].set_ylabel("seconds a step")
    rows[1, 0].set_ylabel("peak memory in MiB")
    figure.suptitle(
        f"A step of distillation, one thing varied at a time ({record.machine}; {record.device}). Bars: quartiles",
        fontsize=10,
    )
    figure.savefig(file, dpi=150, format="png")
    pyplot.close(figure)


def _values(record: Record, axis: str) -> list[int]:
    found = (re.fullmatch(rf"{axis}_(\d+)_seconds", name) for name in record.figures)
    return sorted(int(match[1]) for match in found if match)


def _line(ax: "Axes", record: Record, axis: str, unit: str) -> None:
    values = _values(record, axis)
    x = np.array(values, float)
    if axis == "channels":
        x = np.array([record.figures[f"channels_{value}_parameters"] for value in values]) / 1e6
    y = np.array([record.figures[f"{axis}_{value}_{unit}"] for value in values])
    spread = None
    if unit == "seconds":
        spread = [record.figures[f"{axis}_{value}_seconds_iqr"] / 2 for value in values]
    ax.errorbar(x, y, yerr=spread, fmt="o-", color="#1b4f8f", markersize=4, linewidth=1.4, capsize=2)


if __name__ == "__main__":
    # Return freed memory to the system, so that a peak is memory in use.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    with reporting(debug=False):
        main()
