"""Gaussian to Swiss roll in a few seconds of training, for benchmarks of quality.

Quality is SW2, the sliced 2-Wasserstein distance between translated test sources and a test sample of the target, both
of 5,000 points, over 256 directions.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from benchmarks.record import say
from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.data.sampling import StepRandom, derived_seed, seed_global
from rdmd.data.shards import read_split
from rdmd.evaluation.transport import sliced_w2
from rdmd.files import sha256_of
from rdmd.networks.build import save_weights
from rdmd.training.distill import DistillObjective
from rdmd.training.run_config import DistillRun, Shards, TeacherRun, Weights
from rdmd.training.teacher import TeacherObjective

SWISSROLL = Path(__file__).parents[1] / "experiments" / "swissroll.yaml"
PROJECTIONS = 256
LAM = 0.02


@dataclass(frozen=True)
class Plane:
    """The experiment `swissroll` with its domains on disk, for one seed, precision and device."""

    root: Path
    settings: config.Settings
    seed: int
    precision: str
    device: torch.device

    @staticmethod
    def make(root: Path, seed: int, device: torch.device, precision: str = "float32") -> "Plane":
        """Write the domains below `root` unless they exist; they are the same for every seed."""
        settings = config.load(SWISSROLL)
        for name in ("source", "target"):
            if not (root / name).exists():
                preprocess(settings, name, root / name)
        return Plane(root, settings, seed, precision, device)

    def teacher_run(self, steps: int) -> TeacherRun:
        """The training run of the teacher."""
        settings = self.settings.teacher.model_copy(update={"steps": steps, "sample_every": 0})
        return TeacherRun(settings=settings, **self._common())

    def distill_run(self, lam: float | config.LambdaRange, steps: int, teacher: Weights) -> DistillRun:
        """The distillation run of one lambda, or of a range of it."""
        settings = self.settings.distill.model_copy(update={"steps": steps, "sample_every": 0})
        own = {"source": self._shards("source"), "teacher": teacher, "lam": lam}
        return DistillRun(settings=settings, **own, **self._common())

    def objective(self, run: TeacherRun | DistillRun) -> TeacherObjective | DistillObjective:
        """The objective of a run, as in a training process."""
        AcceleratorState._reset_state(reset_partial_state=True)
        precision = "bf16" if self.precision == "bf16" else "no"
        accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision=precision)
        return TeacherObjective(run, accelerator) if isinstance(run, TeacherRun) else DistillObjective(run, accelerator)

    def step(self, objective: TeacherObjective | DistillObjective, t: int) -> None:
        """Take step t as the training loop does."""
        seed_global(derived_seed(objective.seed, 0, t, "global"), self.device)
        objective.step(t, StepRandom(objective.seed, 0, t, self.device))

    def trained_teacher(self, steps: int) -> Weights:
        """Train the teacher and return its weights."""
        objective = self.objective(self.teacher_run(steps))
        for t in range(steps):
            self.step(objective, t)
        return self.written(objective.ema.averaged, "teacher")

    def written(self, module: nn.Module, name: str) -> Weights:
        """Write the weights of a network to a file."""
        path = self.root / f"{name}.{self.precision}.{self.seed}.safetensors"
        save_weights(module, path)
        return Weights(path=path, sha256=sha256_of(path))

    def quality(self, generator: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """SW2 and the transport cost (squared distance, summed over both dimensions) on the test splits."""
        source, target = self._test("source"), self._test("target")
        with torch.no_grad():
            made = generator(source.to(self.device)).cpu()
        return sliced_w2(made, target, PROJECTIONS, seed=0), (made - source).square().sum(1).mean().item()

    def floor(self) -> float:
        """SW2 of two samples of the target, of the size that `quality` uses."""
        test = self._test("target")
        return sliced_w2(read_split(self.root / "target", "train").data[: len(test)], test, PROJECTIONS, seed=0)

    def _test(self, name: str) -> Tensor:
        return read_split(self.root / name, "test").data

    def _common(self) -> dict[str, object]:
        return {
            "experiment": "benchmark", "seed": self.seed, "sample_shape": (2,), "network": self.settings.network,
            "precision": self.precision, "processes": 1, "target": self._shards("target"),
        }  # fmt: skip

    def _shards(self, name: str) -> Shards:
        return Shards(path=self.root / name, digest=name)


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
