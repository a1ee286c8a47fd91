"""Time of a whole front compared with one point of it, on the plane.

`front_over_one`: seconds of a generator that takes lambda as an input, in 1.5 times the steps, divided by the seconds
of a generator of one lambda. Each trains in a process of its own, as in the stage `distill`; its start counts.
`lambda_step_over_plain`: the same at equal steps, which is the cost of the input. SW2 and transport cost of each
generator at lambda 0.02 stand beside them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import default_device
from benchmarks.plane import LAM, Plane
from benchmarks.record import record, say
from benchmarks.timing import Spread
from rdmd import config
from rdmd.errors import reporting
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.model_folder import load_generator
from rdmd.pipeline.model_source import card_of_run
from rdmd.pipeline.training import SlotPool
from rdmd.training.run_config import Weights
from rdmd.training.run_folder import RunFolder

STEPS_OF_FRONT = 1.5


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.front", description=__doc__)
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=4000, help="of the generator of one lambda")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    device = default_device()
    cores = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    figures: dict[str, float] = {"teacher_steps": given.teacher_steps, "steps": given.steps, "lambda": LAM}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        plane = Plane.make(Path(name), 0, device)
        figures |= _compared(plane, plane.trained_teacher(given.teacher_steps), given.steps, given.rounds)
    torch.set_num_threads(cores)
    record("front", figures, device)


def _compared(plane: Plane, teacher: Weights, steps: int, rounds: int) -> dict[str, float]:
    front = config.LambdaRange.model_validate({"from": 0.003, "to": 0.5})
    ways = {
        "one": (LAM, steps),
        "equal": (front, steps),
        "front": (front, round(STEPS_OF_FRONT * steps)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    figures: dict[str, float] = {}
    for k in range(rounds):
        for way, (lam, length) in ways.items():
            taken, folder = _train(plane, teacher, lam, length, f"{way}{k}")
            seconds[way].append(taken)
            _, generator = load_generator(folder.path, plane.device, card_of_run(folder))
            sw2, cost = plane.quality(lambda x, G=generator: G(x, LAM))
            figures |= {f"sw2_{way}": sw2, f"cost_{way}": cost}
            say(f"{way}: {taken:.1f} s, SW2 {sw2:.4f}, cost {cost:.4f} at lambda {LAM}")
    for name, way in (("front_over_one", "front"), ("lambda_step_over_plain", "equal")):
        figures |= Spread.of(tuple(b / a for a, b in zip(seconds["one"], seconds[way], strict=True))).figures(name)
    return figures | {
        "one_seconds": Spread.of(tuple(seconds["one"])).median,
        "sw2_of_two_target_samples": plane.floor(),
    }


def _train(
    plane: Plane, teacher: Weights, lam: float | config.LambdaRange, steps: int, name: str
) -> tuple[float, RunFolder]:
    folder = RunFolder.prepare(plane.root / name, plane.distill_run(lam, steps, teacher))
    begun = time.perf_counter()
    with SlotPool(plane.settings.launch).lend() as slot:
        TrainingProcesses().train(folder, slot, lambda points: None)
    return time.perf_counter() - begun, folder


if __name__ == "__main__":
    with reporting(debug=False):
        main()
