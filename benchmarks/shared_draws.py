"""Difference of quality and time between `distill.fake_draws: shared` and `own`.

Quality is measured on the plane at lambda 0.02, over seeds. `sw2_shared_minus_own` is the mean difference, `_se` its
standard error over the seeds, and `sd_over_seeds_own` the standard deviation over the seeds. `shared_step_over_own` is
the ratio of the times of a step at 64x64.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.machine import default_device
from benchmarks.materials import LARGE_64, SMALL_64, accelerator_for, distill_run, write_images
from benchmarks.plane import Plane, landing, lengths_given
from benchmarks.record import record
from benchmarks.step import WholeStep
from benchmarks.timing import interleaved
from rdmd.errors import reporting
from rdmd.training.distill import DistillObjective

SIDE = 64
WAYS = ("own", "shared")


def main() -> None:
    """Measure and record."""
    lengths = lengths_given("python -m benchmarks.shared_draws", __doc__, seeds=5)
    device = default_device()
    ways = {draws: lambda root, seed, draws=draws: _plane(root, seed, device, draws) for draws in WAYS}
    figures = landing(ways, lengths, device)
    record("shared_draws", figures | _seconds(device), device)


def _plane(root: Path, seed: int, device: torch.device, draws: str) -> Plane:
    plane = Plane.make(root, seed, device)
    distill = plane.settings.distill.model_copy(update={"fake_draws": draws})
    return replace(plane, settings=plane.settings.model_copy(update={"distill": distill}))


def _seconds(device: torch.device) -> dict[str, float]:
    network, batch, precision = (LARGE_64, 64, "bf16") if device.type == "cuda" else (SMALL_64, 4, "float32")
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        shards = write_images(Path(name) / "images", 256, SIDE)
        contenders = {}
        for draws in WAYS:
            run = distill_run(Path(name), network, shards, SIDE, batch, precision=precision, fake_draws=draws)
            objective = DistillObjective(run, accelerator_for(run, device))
            contenders[draws] = WholeStep(objective, device, Path(name) / "curves.jsonl")
        timings = interleaved(contenders, device, rounds=9)
    return timings["shared"].over(timings["own"]).figures("shared_step_over_own")


if __name__ == "__main__":
    with reporting(debug=False):
        main()
