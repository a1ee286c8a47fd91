"""Training objectives on small domains, without the pipeline around them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from rdmd import config
from rdmd.config.reading import parse
from rdmd.data.preprocess import preprocess
from rdmd.data.sampling import StepRandom, seed_global
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.training.distill import DistillObjective
from rdmd.training.run_config import DistillRun, Shards, TeacherRun, Weights
from rdmd.training.teacher import TeacherObjective
from tests.conftest import ROOT, params, tiny_digits, tiny_points

CPU = torch.device("cpu")
TINY = {"digits": tiny_digits, "swissroll": tiny_points}
Objective = TeacherObjective | DistillObjective


@dataclass(frozen=True)
class Materials:
    """Shards of a tiny experiment and weights for its teacher, which has learned nothing."""

    settings: config.Settings
    root: Path

    @staticmethod
    def make(experiment: str, root: Path) -> "Materials":
        """`digits`, whose network is a U-Net of 8x8 and 4x4, or `swissroll`. Below `root`, or as they lie there."""
        settings = parse(params(experiment, TINY[experiment]), experiment)
        if not (root / "teacher.safetensors").exists():
            # The domains of these two are files of the project.
            before = Path.cwd()
            os.chdir(ROOT)
            try:
                for name in ("source", "target"):
                    preprocess(settings, name, root / name)
            finally:
                os.chdir(before)
            torch.manual_seed(0)
            denoiser = build_denoiser(settings.network, settings.sample_shape)
            # Published initialisations end branches near zero, where nothing would reach the output.
            for weight in denoiser.parameters():
                if weight.ndim > 1:
                    torch.nn.init.xavier_uniform_(weight)
            save_weights(denoiser, root / "teacher.safetensors")
        return Materials(settings, root)

    def distill_run(self, run: dict[str, Any] | None = None, **settings: object) -> DistillRun:
        """RDMD at lambda 0.1, with changes of the run and of `distill`'s settings."""
        weights = self.root / "teacher.safetensors"
        changed = self.settings.distill.model_copy(update=settings)
        own = {
            "lam": 0.1, "source": self._shards("source"), "teacher": Weights(path=weights, sha256=sha256_of(weights)),
        }  # fmt: skip
        return DistillRun(settings=changed, **own | self._common() | (run or {}))

    def teacher_run(self, run: dict[str, Any] | None = None, **settings: object) -> TeacherRun:
        """The teacher's training, likewise, from those weights on."""
        weights = self.root / "teacher.safetensors"
        changed = self.settings.teacher.model_copy(update=settings)
        own = {"initial": Weights(path=weights, sha256=sha256_of(weights))}
        return TeacherRun(settings=changed, **own, **self._common() | (run or {}))

    def distill(self, run: dict[str, Any] | None = None, **settings: object) -> DistillObjective:
        """What `distill_run` minimises, on the CPU."""
        described = self.distill_run(run, **settings)
        return DistillObjective(described, accelerator(described.precision))

    def teacher(self, run: dict[str, Any] | None = None, **settings: object) -> TeacherObjective:
        """What `teacher_run` minimises, on the CPU."""
        described = self.teacher_run(run, **settings)
        return TeacherObjective(described, accelerator(described.precision))

    def _common(self) -> dict[str, Any]:
        return {
            "experiment": "test", "seed": 0, "sample_shape": self.settings.sample_shape, "processes": 1,
            "network": self.settings.network, "precision": "float32", "target": self._shards("target"),
        }  # fmt: skip

    def _shards(self, name: str) -> Shards:
        return Shards(path=self.root / name, digest=name)


def accelerator(precision: str = "float32") -> Accelerator:
    """As a training process has it, which has one for all of its life."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, mixed_precision="bf16" if precision == "bf16" else "no")


def take_step(objective: Objective, t: int = 0, rank: int = 0) -> dict[str, torch.Tensor]:
    """Step t as the loop takes it."""
    seed_global(t, CPU)
    return objective.step(t, StepRandom(0, rank, t, CPU))


def gradients(objective: Objective) -> dict[str, torch.Tensor]:
    """The gradient of every module in the one step that was taken, (n,) each: Adam's first moment over 1 - beta1."""
    found = {}
    for name, optimizer in objective.optimizers.items():
        group = optimizer.param_groups[0]
        moments = [optimizer.state[weight]["exp_avg"].flatten() for weight in group["params"]]
        found[name] = torch.cat(moments) / (1 - group["betas"][0])
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b||."""
    return ((a - b).norm() / b.norm()).item()
