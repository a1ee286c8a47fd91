"""Quality and time on the plane, from a Gaussian to the Swiss roll, where a training takes seconds.

`python -m benchmarks.plane [precision] [shared_draws] [front]` makes a record of each that is named, or of all three.
Quality is SW2, the sliced 2-Wasserstein distance between translated test sources and a test sample of the target, both
of 5,000 points, over 256 directions, and the transport cost, at lambda 0.02.

`precision` compares bf16 with float32 and `shared_draws` compares `distill.fake_draws: shared` with `own`: teacher and
generator are trained in both ways, over seeds. A seed sets the initial weights and all noise. `sw2_B_minus_A` is the
mean difference, `_se` its standard error over the seeds, and `sd_over_seeds_A` the standard deviation over the seeds.

`front` compares the time of a whole front with that of one point of it. `front_over_one`: seconds of a generator that
takes lambda as an input, in 1.5 times the steps, divided by the seconds of a generator of one lambda. Each trains in a
process of its own, as in the stage `distill`; its start counts. `lambda_step_over_plain`: the same at equal steps,
which is the cost of the input.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from benchmarks.machine import default_device
from benchmarks.record import record, say
from benchmarks.timing import Spread
from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.data.sampling import StepRandom, derived_seed, seed_global
from rdmd.data.shards import read_split
from rdmd.errors import reporting
from rdmd.evaluation.transport import sliced_w2
from rdmd.files import sha256_of
from rdmd.networks.build import save_weights
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.model_folder import load_generator
from rdmd.pipeline.model_source import card_of_run
from rdmd.pipeline.training import SlotPool
from rdmd.training.distill import DistillObjective
from rdmd.training.run_config import DistillRun, Shards, TeacherRun, Weights
from rdmd.training.run_folder import RunFolder
from rdmd.training.teacher import TeacherObjective

SWISSROLL = Path(__file__).parents[1] / "experiments" / "swissroll.yaml"
PROJECTIONS = 256
LAM = 0.02
FRONT = config.LambdaRange.model_validate({"from": 0.003, "to": 0.5})
ROUNDS = 3


@dataclass(frozen=True)
class Plane:
    """The experiment `swissroll` with its domains on disk, for one seed, precision and device."""

    root: Path
    settings: config.Settings
    seed: int
    precision: str
    device: torch.device

    @staticmethod
    def make(
        root: Path, seed: int, device: torch.device, precision: str = "float32", fake_draws: str = "shared"
    ) -> "Plane":
        """Write the domains below `root` unless they exist; they are the same for every seed."""
        settings = config.load(SWISSROLL)
        for name in ("source", "target"):
            if not (root / name).exists():
                preprocess(settings, name, root / name)
        distill = settings.distill.model_copy(update={"fake_draws": fake_draws})
        return Plane(root, settings.model_copy(update={"distill": distill}), seed, precision, device)

    def teacher_run(self, steps: int) -> TeacherRun:
        """The training run of the teacher."""
        settings = self.settings.teacher.model_copy(update={"steps": steps, "sample_every": 0})
        return TeacherRun(settings=settings, **self._common())

    def distill_run(self, lam: float | config.LambdaRange, steps: int, teacher: Weights) -> DistillRun:
        """The distillation run of one lambda, or of a range of it."""
        settings = self.settings.distill.model_copy(update={"steps": steps, "sample_every": 0})
        own = {"source": self._shards("source"), "teacher": teacher, "lam": lam}
        return DistillRun(settings=settings, **own, **self._common())

    def trained(self, run: TeacherRun | DistillRun) -> nn.Module:
        """The averaged network after the steps of a run, taken here as a training process takes them."""
        AcceleratorState._reset_state(reset_partial_state=True)
        precision = "bf16" if self.precision == "bf16" else "no"
        accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision=precision)
        kind = TeacherObjective if isinstance(run, TeacherRun) else DistillObjective
        objective = kind(run, accelerator)
        for t in range(run.settings.steps):
            seed_global(derived_seed(objective.seed, 0, t, "global"), self.device)
            objective.step(t, StepRandom(objective.seed, 0, t, self.device))
        return objective.ema.averaged

    def trained_teacher(self, steps: int) -> Weights:
        """Train the teacher and write its weights to a file."""
        path = self.root / f"teacher.{self.precision}.{self.seed}.safetensors"
        save_weights(self.trained(self.teacher_run(steps)), path)
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


# The two ways of a comparison, by name: the options of `Plane.make`.
COMPARED: dict[str, dict[str, dict[str, str]]] = {
    "precision": {"float32": {}, "bf16": {"precision": "bf16"}},
    "shared_draws": {"own": {"fake_draws": "own"}, "shared": {}},
}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plane", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*COMPARED, "front"]
    parser.add_argument("names", nargs="*", choices=["all", *every], default="all")
    parser.add_argument("--seeds", type=int, default=5, help="of the comparisons")
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=1000, help="of a generator; four times as many for the front")
    parsed = parser.parse_args()
    device, cores = default_device(), torch.get_num_threads()
    for name in every if "all" in parsed.names else parsed.names:
        if device.type == "cpu":
            torch.set_num_threads(1)  # as in the experiment: two threads would wait for each other
        figures: dict[str, float] = {"teacher_steps": parsed.teacher_steps, "steps": parsed.steps, "lambda": LAM}
        with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as folder:
            if name == "front":
                figures |= front(Plane.make(Path(folder), 0, device), parsed.teacher_steps, 4 * parsed.steps)
            else:
                figures |= compared(
                    Path(folder), COMPARED[name], parsed.seeds, parsed.teacher_steps, parsed.steps, device
                )
        torch.set_num_threads(cores)
        record(name, figures, device)


def compared(
    root: Path, ways: Mapping[str, dict[str, str]], seeds: int, teacher_steps: int, steps: int, device: torch.device
) -> dict[str, float]:
    """Train a teacher and a generator in each of two ways, over the seeds.

    Returns figures for "sw2" and "cost": the mean of each way, the standard deviation of the first over the seeds, and
    the mean difference with its standard error.
    """
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for seed in range(seeds):
        for way, options in ways.items():
            plane = Plane.make(root, seed, device, **options)
            run = plane.distill_run(LAM, steps, plane.trained_teacher(teacher_steps))
            found[way].append(plane.quality(plane.trained(run)))
            say(f"seed {seed}, {way}: SW2 {found[way][-1][0]:.4f}, cost {found[way][-1][1]:.4f}")
    figures: dict[str, float] = {"seeds": seeds, "sw2_of_two_target_samples": plane.floor()}
    first, second = ways
    for i, measured in enumerate(("sw2", "cost")):
        before, after = ([pair[i] for pair in found[way]] for way in (first, second))
        differences = [b - a for a, b in zip(before, after, strict=True)]
        figures |= {
            f"{measured}_{first}": statistics.mean(before),
            f"{measured}_{second}": statistics.mean(after),
            f"{measured}_sd_over_seeds_{first}": statistics.stdev(before),
            f"{measured}_{second}_minus_{first}": statistics.mean(differences),
            f"{measured}_{second}_minus_{first}_se": statistics.stdev(differences) / len(differences) ** 0.5,
        }
    return figures


def front(plane: Plane, teacher_steps: int, steps: int) -> dict[str, float]:
    """The times of the front and of one point of it, and the quality of each generator."""
    teacher = plane.trained_teacher(teacher_steps)
    ways = {"one": (LAM, steps), "equal": (FRONT, steps), "front": (FRONT, round(1.5 * steps))}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    figures: dict[str, float] = {"steps": steps}
    for k in range(ROUNDS):
        for way, (lam, length) in ways.items():
            folder = RunFolder.prepare(plane.root / f"{way}{k}", plane.distill_run(lam, length, teacher))
            begun = time.perf_counter()
            with SlotPool(plane.settings.launch).lend() as slot:
                TrainingProcesses().train(folder, slot, lambda points: None)
            seconds[way].append(time.perf_counter() - begun)
            _, generator = load_generator(folder.path, plane.device, card_of_run(folder))
            sw2, cost = plane.quality(lambda x, G=generator: G(x, LAM))
            figures |= {f"sw2_{way}": sw2, f"cost_{way}": cost}
            say(f"{way}: {seconds[way][-1]:.1f} s, SW2 {sw2:.4f}, cost {cost:.4f}")
    for name, way in (("front_over_one", "front"), ("lambda_step_over_plain", "equal")):
        figures |= Spread.of(tuple(b / a for a, b in zip(seconds["one"], seconds[way], strict=True))).figures(name)
    return figures | {
        "one_seconds": statistics.median(seconds["one"]), "sw2_of_two_target_samples": plane.floor(),
    }  # fmt: skip


if __name__ == "__main__":
    with reporting(debug=False):
        main()
