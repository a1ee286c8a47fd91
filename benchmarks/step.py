"""Time of a whole step of distillation, divided by the time of the network passes that it needs.

The whole step has data, noise, generator, teacher, fake denoiser, both updates, the average of the weights, and the
line of the curves where it is due. The passes are the generator forward and backward, the teacher forward without a
graph, and the fake denoiser forward and backward (with `fake_draws: own` also forward without a graph), on tensors that
exist already, at the same batch, precision and compilation. `step_over_bare` is for the 64x64 network; `_digits` and
`_swissroll` are for the small ones, which are also timed compiled against eager (on a GPU with CUDA graphs too).
`shared_step_over_own` is the time with `fake_draws: shared`, the default, divided by that with `own`, at 64x64.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import default_device
from benchmarks.materials import LARGE_64, SMALL_64, accelerator_for, distill_run, write_images
from benchmarks.record import record, say
from benchmarks.timing import interleaved
from rdmd import config
from rdmd.data.sampling import StepRandom, derived_seed, seed_global
from rdmd.data.view import DomainView
from rdmd.errors import reporting
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.launch import training_environment
from rdmd.training.distill import DistillObjective
from rdmd.training.loop import LoggedSteps
from rdmd.training.run_config import DistillRun, Shards, Weights
from rdmd.training.run_folder import Point, curve_line

LOG_EVERY = 10
DIGITS = config.ImageNetwork(kind="ddpmpp", model_channels=24, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4])
SWISSROLL = config.PointNetwork(kind="mlp", width=128, depth=3, sigma_data=0.9)


@dataclass(frozen=True)
class Case:
    """A network with its batch, threads and rounds."""

    name: str
    network: config.Network
    side: int | None
    batch: int
    threads: int
    rounds: int
    calls: int
    precision: str = "float32"


class WholeStep:
    """The steps of the training loop, with the curves on disk."""

    def __init__(self, objective: DistillObjective, device: torch.device, curves: Path) -> None:
        self.objective, self.device, self.curves = objective, device, curves
        self.logged = LoggedSteps(first=0)
        self.t = 0

    def __call__(self) -> None:
        t = self.t
        seed_global(derived_seed(0, 0, t, "global"), self.device)
        self.logged.rows.append(self.objective.step(t, StepRandom(0, 0, t, self.device)))
        self.t = t + 1
        if self.t % LOG_EVERY == 0:
            means = self.logged.means()
            self.logged = LoggedSteps(first=self.t)
            with self.curves.open("a", encoding="utf-8") as file:
                file.write(curve_line(Point(self.t, means)))


class BarePasses:
    """The network passes of a step, and nothing else."""

    def __init__(self, objective: DistillObjective, device: torch.device) -> None:
        self.compute = objective.compute
        self.G, self.fake, self.real = (
            self.compute.call(net) for net in (objective.generator, objective.fake, objective.teacher)
        )
        self.modules = list(objective.modules.values())
        self.batch = objective.draw(StepRandom(0, 0, 0, device))
        self.ones = torch.ones_like(self.batch.x)
        self.shared = objective.settings.fake_draws == "shared"

    def __call__(self) -> None:
        x, sigma = self.batch.x, self.batch.sigma
        self.compute.begin_step()
        generated = self.G(x)
        with torch.no_grad():
            if not self.shared:
                self.fake(x, sigma)
            self.real(x, sigma)
        generated.backward(self.ones)
        self.fake(x, sigma).backward(self.ones)
        for module in self.modules:
            module.zero_grad(set_to_none=True)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="of 64x64, digits, swissroll; all by default")
    parser.add_argument("--eager", action="store_true", help="do not compile the small networks")
    parsed = parser.parse_args()
    _as_a_training_process()
    device = default_device()
    on_gpu = device.type == "cuda"
    cores = torch.get_num_threads()
    if on_gpu:
        cases = [
            Case("", LARGE_64, 64, 64, cores, 9, 10, "bf16"),
            Case("_digits", DIGITS, 8, 64, cores, 9, 50),
            Case("_swissroll", SWISSROLL, None, 512, cores, 9, 100),
        ]
    else:
        cases = [
            Case("", SMALL_64, 64, 4, cores, 9, 1),
            Case("_digits", DIGITS, 8, 64, 1, 9, 4),
            Case("_swissroll", SWISSROLL, None, 512, 1, 15, 40),
        ]
    figures: dict[str, float] = {}
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    for case in cases:
        if parsed.networks and _label(case) not in parsed.networks:
            continue
        torch.set_num_threads(case.threads)
        figures |= {f"batch{case.name}": case.batch, f"threads{case.name}": case.threads}
        figures |= measure(case, device, parsed.eager)
    torch.set_num_threads(cores)
    record("step", figures, device)


def _as_a_training_process() -> None:
    """Restart this benchmark once with the environment variables of a training process: the allocator reads them when a
    process starts."""
    wanted = training_environment()
    if any(name not in os.environ for name in wanted):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.step", *sys.argv[1:]], wanted | os.environ)


def measure(case: Case, device: torch.device, eager: bool) -> dict[str, float]:
    """The figures of one network."""
    small = case.name != ""
    # Compile the large network where a training would.
    modes = ["off" if small else "auto"]
    if small and not eager:
        modes += ["on", "cuda_graphs"] if device.type == "cuda" else ["on"]
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        contenders = {}
        for mode in modes:
            say(f"{_label(case)}, compile {mode}")
            objective = _objective(case, Path(name), device, mode)
            contenders[f"whole {mode}"] = WholeStep(objective, device, Path(name) / "curves.jsonl")
            contenders[f"bare {mode}"] = BarePasses(objective, device)
        if not small:
            own = _objective(case, Path(name), device, modes[0], fake_draws="own")
            contenders["own"] = WholeStep(own, device, Path(name) / "curves.jsonl")
        timings = interleaved(contenders, device, case.rounds, case.calls)
    first = modes[0]
    figures = timings[f"whole {first}"].over(timings[f"bare {first}"]).figures(f"step_over_bare{case.name}")
    figures[f"step_seconds{case.name}"] = timings[f"whole {first}"].spread.median
    if not small:
        figures |= timings[f"whole {first}"].over(timings["own"]).figures("shared_step_over_own")
    for mode in modes[1:]:
        word = {"on": "compiled", "cuda_graphs": "cuda_graphs"}[mode]
        figures |= timings[f"whole {mode}"].over(timings[f"whole {first}"]).figures(f"{word}_over_eager{case.name}")
        figures |= timings[f"whole {mode}"].over(timings[f"bare {mode}"]).figures(f"{word}_step_over_bare{case.name}")
    return figures


def _label(case: Case) -> str:
    return case.name.strip("_") or "64x64"


def _objective(case: Case, root: Path, device: torch.device, mode: str, **changes: object) -> DistillObjective:
    compute = config.Compute(compile=mode)
    if case.side is not None:
        images = root / "images"
        shards = Shards(path=images, digest="") if images.exists() else write_images(images, 256, case.side)
        changes |= {"precision": case.precision, "compute": compute}
        run = distill_run(root, case.network, shards, case.side, case.batch, **changes)
        return DistillObjective(run, accelerator_for(run, device))
    weights = root / "points.safetensors"
    save_weights(build_denoiser(case.network, (2,)), weights)
    nowhere = Shards(path=root, digest="")
    run = DistillRun(
        experiment="benchmark", seed=0, sample_shape=(2,), network=case.network, target=nowhere, source=nowhere,
        precision=case.precision, processes=1, compute=compute, lam=0.1, source_noise=1.0,
        teacher=Weights(path=weights, sha256=sha256_of(weights)),
        settings=config.Distill(lambdas=[0.1], steps=10**9, batch=case.batch),
    )  # fmt: skip
    objective = DistillObjective(run, accelerator_for(run, device))
    objective.source, objective.from_noise = DomainView(torch.randn(10_000, 2, device=device), device), False
    return objective


if __name__ == "__main__":
    with reporting(debug=False):
        main()
