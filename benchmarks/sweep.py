"""Time of several lambdas compared with one, on the plane.

`sweep6_over_one`: seconds of six generators that train at once as in `rdmd distill` (one process each; on a CPU as many
at once as there are cores, on a GPU all six), divided by six times the seconds of one that trains alone. The start of
the processes counts.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.machine import default_device
from benchmarks.plane import Plane
from benchmarks.record import record, say
from benchmarks.timing import Spread
from rdmd.errors import reporting
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.training import SlotPool
from rdmd.training.run_config import Weights
from rdmd.training.run_folder import RunFolder

SIX = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="of the sweep of six")
    given = parser.parse_args()
    device = default_device()
    cores = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    figures: dict[str, float] = {"teacher_steps": given.teacher_steps, "steps": given.steps}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        plane = Plane.make(Path(name), 0, device)
        figures |= _six(plane, plane.trained_teacher(given.teacher_steps), given.steps, given.rounds)
    torch.set_num_threads(cores)
    record("sweep", figures, device)


def _six(plane: Plane, teacher: Weights, steps: int, rounds: int) -> dict[str, float]:
    on_gpu = plane.device.type == "cuda"
    launch = plane.settings.launch.model_copy(update={"parallel": len(SIX)} if on_gpu else {})
    alone, together = [], []
    for k in range(rounds):
        alone.append(_seconds(plane, teacher, SIX[:1], steps, launch, f"one{k}"))
        together.append(_seconds(plane, teacher, SIX, steps, launch, f"six{k}"))
        say(f"one lambda {alone[-1]:.1f} s, six {together[-1]:.1f} s")
    ratios = Spread.of(tuple(b / (len(SIX) * a) for a, b in zip(alone, together, strict=True)))
    return ratios.figures("sweep6_over_one") | {
        "sweep6_at_once": SlotPool(launch).size, "one_seconds": Spread.of(tuple(alone)).median,
    }  # fmt: skip


def _seconds(plane: Plane, teacher: Weights, lambdas: tuple[float, ...], steps: int, launch, name: str) -> float:
    pool, processes = SlotPool(launch), TrainingProcesses()
    folders = [RunFolder.prepare(plane.root / name, plane.distill_run(lam, steps, teacher)) for lam in lambdas]

    def train(folder: RunFolder) -> None:
        with pool.lend() as slot:
            processes.train(folder, slot, lambda points: None)

    begun = time.perf_counter()
    with ThreadPoolExecutor(pool.size) as executor:
        list(executor.map(train, folders))
    return time.perf_counter() - begun


if __name__ == "__main__":
    with reporting(debug=False):
        main()
