"""Compare the quality on the plane of two ways of training, over the same seeds."""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.plane import Plane
from benchmarks.record import say

LAM = 0.02


@dataclass(frozen=True)
class Lengths:
    """Seeds, and the steps of each training."""

    seeds: int
    teacher_steps: int
    steps: int


def lengths_given(prog: str, description: str | None, seeds: int) -> Lengths:
    """The lengths from the command line; `seeds` is the default."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=1000)
    return Lengths(**vars(parser.parse_args()))


def landing(
    ways: Mapping[str, Callable[[Path, int], Plane]], lengths: Lengths, device: torch.device
) -> dict[str, float]:
    """Train a teacher and a generator at lambda 0.02 in each of two ways, over the seeds.

    Returns figures for "sw2" and "cost": the mean of each way, the standard deviation of the first over the seeds, and
    the mean difference with its standard error.

    ways: name -> function of a folder and a seed that makes the plane. A seed sets the initial weights and all noise.
    """
    cores = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)  # as in the experiment: two threads would wait for each other
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        for seed in range(lengths.seeds):
            for way, make in ways.items():
                plane = make(Path(name), seed)
                found[way].append(_trained(plane, lengths))
                say(f"seed {seed}, {way}: SW2 {found[way][-1][0]:.4f}, cost {found[way][-1][1]:.4f}")
        floor = plane.floor()
    torch.set_num_threads(cores)
    figures: dict[str, float] = {
        "seeds": lengths.seeds, "teacher_steps": lengths.teacher_steps, "steps": lengths.steps, "lambda": LAM,
        "sw2_of_two_target_samples": floor,
    }  # fmt: skip
    for i, measured in enumerate(("sw2", "cost")):
        values = {way: [pair[i] for pair in found[way]] for way in ways}
        figures |= _compared(measured, values)
    return figures


def _trained(plane: Plane, lengths: Lengths) -> tuple[float, float]:
    teacher = plane.trained_teacher(lengths.teacher_steps)
    objective = plane.objective(plane.distill_run(LAM, lengths.steps, teacher))
    for t in range(lengths.steps):
        plane.step(objective, t)
    return plane.quality(objective.ema.averaged)


def _compared(measured: str, values: dict[str, list[float]]) -> dict[str, float]:
    (first, before), (second, after) = values.items()
    differences = [b - a for a, b in zip(before, after, strict=True)]
    return {f"{measured}_{way}": statistics.mean(values[way]) for way in values} | {
        f"{measured}_sd_over_seeds_{first}": statistics.stdev(before),
        f"{measured}_{second}_minus_{first}": statistics.mean(differences),
        f"{measured}_{second}_minus_{first}_se": statistics.stdev(differences) / len(differences) ** 0.5,
    }
