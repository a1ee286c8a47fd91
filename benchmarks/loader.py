"""Samples a second from the memory-mapped array, divided by those that a step of distillation at 64x64 consumes.

The array is in the system's file cache, except for `cold_samples_per_second`.
"""

import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import default_device
from benchmarks.materials import LARGE_64, SMALL_64, accelerator_for, distill_run, write_images
from benchmarks.record import record, say
from benchmarks.step import WholeStep
from benchmarks.timing import interleaved
from rdmd.data.sampling import StepRandom
from rdmd.data.view import DomainView, open_domain
from rdmd.errors import reporting
from rdmd.training.distill import DistillObjective

SIDE = 64
# Batches of a round.
BATCHES = 30


class Batches:
    """Draws the batches of consecutive steps from a source."""

    def __init__(self, source: DomainView, batch: int, device: torch.device) -> None:
        self.source, self.batch, self.device = source, batch, device
        self.step = 0

    def __call__(self) -> None:
        self.source.batch(self.batch, StepRandom(0, 0, self.step, self.device), "source")
        self.step += 1


def main() -> None:
    """Measure and record."""
    device = default_device()
    on_gpu = device.type == "cuda"
    samples, loaded = (65_536, 256) if on_gpu else (8_192, 64)
    network, trained = (LARGE_64, 64) if on_gpu else (SMALL_64, 4)
    rounds, calls = (7, 10) if on_gpu else (4, 1)
    figures: dict[str, float] = {"samples": samples, "loader_batch": loaded, "step_batch": trained}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        root = Path(name)
        say(f"writing {samples} images of {SIDE}x{SIDE}")
        shards = write_images(root / "source", samples, SIDE)
        run = distill_run(root, network, shards, SIDE, trained, precision="bf16" if on_gpu else "float32")

        say("steps of distillation")
        whole = WholeStep(DistillObjective(run, accelerator_for(run, device)), device, root / "curves.jsonl")
        steps = interleaved({"step": whole}, device, rounds, calls)
        consumption = trained / steps["step"].spread.median
        figures["consumption_samples_per_second"] = consumption

        say("batches alone")
        mapped = open_domain(shards.path, "train", torch.device("cpu"))
        contenders = {
            "mapped": Batches(DomainView(mapped.stored, device), loaded, device),
            "resident": Batches(DomainView(mapped.stored.clone().to(device), device), loaded, device),
        }
        timings = interleaved(contenders, device, rounds=5, calls=BATCHES)
        for which, timing in timings.items():
            figures[f"{which}_samples_per_second"] = loaded / timing.spread.median
        figures["loader_over_consumption"] = figures["mapped_samples_per_second"] / consumption

        say("an array that is in no cache")
        figures["cold_samples_per_second"] = _cold(shards.path, loaded, device)
    record("loader", figures, device)


def _cold(shards: Path, batch: int, device: torch.device) -> float:
    """Samples a second after the system has dropped the array from its cache."""
    for file in shards.glob("*.npy"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    batches = Batches(DomainView(open_domain(shards, "train", torch.device("cpu")).stored, device), batch, device)
    begun = time.perf_counter()
    count = 20
    for _ in range(count):
        batches()
    return count * batch / (time.perf_counter() - begun)


if __name__ == "__main__":
    with reporting(debug=False):
        main()
