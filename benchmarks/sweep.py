"""Time of several lambdas compared with one, on the plane.

`sweep6_over_one`: seconds of six generators that train at once as in `rdmd distill` (one process each; on a CPU as many
at once as there are cores, on a GPU all six), divided by six times the seconds of one that trains alone. The start of
the processes counts.

`continuation_over_independent`: time to equal quality of a continued sweep (from the largest lambda down), divided by
that of independent generators. The largest lambda trains alike in both. For each other lambda, the quality to reach is
the final SW2 of the independent generator times 1.05, checked every 50 steps. A way is charged the seconds of its
training steps until it first reaches this quality; one that does not reach it is charged all of them and counted in
`continuation_not_reached`. The next generator continues from the state in which the one before reached its quality. The
check itself is not timed. The costs are recorded too, because SW2 alone does not show a map that drifts.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.machine import default_device
from benchmarks.plane import Plane
from benchmarks.record import record, say
from benchmarks.timing import Spread, synchronize
from rdmd.errors import reporting
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.training import SlotPool
from rdmd.training.distill import DistillObjective
from rdmd.training.run_config import Start, Weights
from rdmd.training.run_folder import RunFolder

SIX = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
CHAIN = (0.1, 0.02, 0.005)
LOOK_EVERY = 50
WITHIN = 1.05


@dataclass
class Course:
    """The checks of a generator's training, (seconds of its steps so far, SW2, cost), and the last objective."""

    objective: DistillObjective
    looks: list[tuple[float, float, float]] = field(default_factory=list)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2, help="of the comparison with continuation")
    parser.add_argument("--rounds", type=int, default=3, help="of the sweep of six")
    given = parser.parse_args()
    device = default_device()
    cores = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    figures: dict[str, float] = {"teacher_steps": given.teacher_steps, "steps": given.steps}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        plane = Plane.make(Path(name), 0, device)
        teachers = {0: plane.trained_teacher(given.teacher_steps)}
        figures |= _six(plane, teachers[0], given.steps, given.rounds)
        ratios, unreached = [], 0
        for seed in range(given.seeds):
            plane = Plane.make(Path(name), seed, device)
            teacher = teachers.get(seed) or plane.trained_teacher(given.teacher_steps)
            ratio, missed, costs = _continued(plane, teacher, given.steps)
            ratios.append(ratio)
            unreached += missed
            figures |= {f"{which}_seed_{seed}": cost for which, cost in costs.items()}
        figures |= Spread.of(tuple(ratios)).figures("continuation_over_independent")
        figures |= {"continuation_seeds": given.seeds, "continuation_not_reached": unreached}
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


def _continued(plane: Plane, teacher: Weights, steps: int) -> tuple[float, int, dict[str, float]]:
    """The ratio of the times, the number of lambdas that missed the quality, and the costs at equal quality."""
    first = _course(plane, CHAIN[0], steps, teacher, None, None)
    spent_apart = spent_continued = first.looks[-1][0]
    before, missed, costs = first.objective, 0, {}
    for lam in CHAIN[1:]:
        apart = _course(plane, lam, steps, teacher, None, None)
        wanted = WITHIN * apart.looks[-1][1]
        start = Start(
            generator=plane.written(before.ema.averaged.denoiser, f"generator-{lam:g}"),
            fake=plane.written(before.modules["fake"], f"fake-{lam:g}"),
        )
        continued = _course(plane, lam, steps, teacher, start, wanted)
        reached = next(look for look in apart.looks if look[1] <= wanted)
        spent_apart += reached[0]
        spent_continued += continued.looks[-1][0]
        missed += continued.looks[-1][1] > wanted
        costs |= {f"cost_independent_{lam:g}": reached[2], f"cost_continued_{lam:g}": continued.looks[-1][2]}
        say(
            f"seed {plane.seed}, lambda {lam:g}: SW2 {wanted:.4f} after {reached[0]:.1f} s from the teacher, "
            f"{continued.looks[-1][0]:.1f} s continued (SW2 {continued.looks[-1][1]:.4f})"
        )
        before = continued.objective
    return spent_continued / spent_apart, missed, costs


def _course(plane: Plane, lam: float, steps: int, teacher: Weights, start: Start | None, until: float | None) -> Course:
    """Train one generator to its end, or until its SW2 is at most `until`."""
    course = Course(plane.objective(plane.distill_run(lam, steps, teacher, start)))
    seconds = 0.0
    for t in range(0, steps, LOOK_EVERY):
        synchronize(plane.device)
        begun = time.perf_counter()
        for k in range(t, min(steps, t + LOOK_EVERY)):
            plane.step(course.objective, k)
        synchronize(plane.device)
        seconds += time.perf_counter() - begun
        course.looks.append((seconds, *plane.quality(course.objective.ema.averaged)))
        if until is not None and course.looks[-1][1] <= until:
            break
    return course


if __name__ == "__main__":
    with reporting(debug=False):
        main()
