"""How a step is computed changes no update: compiled networks, and two processes that share a batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.diffusion.noise import NoisyBatch
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.training.run_folder import RunFolder
from rdmd.training.teacher import TeacherObjective
from tests.objectives import CPU, Materials, Objective, apart, gradients, take_step

# Fused kernels and sums over processes add in another order: a few roundings of float32 (6e-8) in each of ten layers.
ROUNDING = 1e-5
RANKS = 2
RANGE = config.LambdaRange.model_validate({"from": 0.02, "to": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["swissroll", "digits"])
def test_compiled_networks_give_the_update_of_eager_ones(experiment: str, tmp_path: Path):
    materials = Materials.make(experiment, tmp_path)
    least = 8 if experiment == "digits" else None
    compiled = config.Compute(compile="on", accumulate=2, activation_checkpointing=least)
    fuse = {"compute": compiled}
    for eager, fused in [
        (materials.teacher(), materials.teacher(fuse)),
        *((materials.distill(fake_draws=draws), materials.distill(fuse, fake_draws=draws))
          for draws in ("own", "shared")),
    ]:  # fmt: skip
        names = {name: list(module.state_dict()) for name, module in eager.modules.items()}
        logged, logged_fused = take_step(eager), take_step(fused)
        for name, expected in gradients(eager).items():
            assert apart(gradients(fused)[name], expected) < ROUNDING
        if "gradient_norm" in logged and logged_fused["gradient_norm"] < ROUNDING:
            # Fake and teacher are still equal: where they differ by roundings says nothing.
            del logged["worst_sigma"], logged_fused["worst_sigma"]
        near = {name: pytest.approx(value.item(), rel=ROUNDING, abs=ROUNDING) for name, value in logged.items()}
        assert logged_fused == near
        assert {name: list(module.state_dict()) for name, module in fused.modules.items()} == names


def joined_step(objective: Objective) -> None:
    """A step on what all ranks draw, as one batch."""
    each = [StepRandom(objective.seed, rank, 0, CPU) for rank in range(RANKS)]
    if isinstance(objective, TeacherObjective):
        objective.denoising_step(together([objective.draw(random) for random in each]))
        return
    batch = together([objective.draw(random) for random in each])
    x_0, _ = objective.generator_step(batch)
    if not objective.shared:
        parts = zip(x_0.chunk(RANKS), batch.lam.chunk(RANKS), each, strict=True)
        objective.fake_step(together([objective.draw_fake(*part, 0) for part in parts]))


def together(batches: list[NoisyBatch]) -> NoisyBatch:
    """One batch of several."""
    names = ["x", "sigma", "eps"] if batches[0].lam is None else ["x", "sigma", "eps", "lam"]
    return NoisyBatch(*(torch.cat([getattr(batch, name) for batch in batches]) for name in names))


TRAIN = """
import sys
from pathlib import Path
from rdmd.training.run import run_training
from rdmd.training.run_folder import RunFolder
for folder in map(RunFolder, map(Path, sys.argv[1:])):
    run_training(folder.read_run(), folder, "cpu")
"""


def test_two_processes_give_the_update_of_one_with_the_doubled_batch(tmp_path: Path):
    """Each rank draws samples of its own, so one process is given those of both."""
    materials = Materials.make("digits", tmp_path)
    (tmp_path / "train.py").write_text(TRAIN, encoding="utf-8")
    short = {"steps": 1, "batch": 8 * RANKS, "sample_every": 0}
    in_parts = {"processes": RANKS, "compute": config.Compute(accumulate=2)}
    runs = [
        materials.teacher_run({"processes": RANKS}, **short),
        *(
            materials.distill_run(in_parts | {"lam": lam}, fake_draws=draws, **short)
            for draws in ("own", "shared")
            for lam in (0.1, RANGE)
        ),
    ]  # fmt: skip
    one = [
        materials.teacher(batch=8),
        *(
            materials.distill({"lam": lam}, batch=8, fake_draws=draws)
            for draws in ("own", "shared")
            for lam in (0.1, RANGE)
        ),
    ]
    folders = [RunFolder.prepare(tmp_path / "runs", run) for run in runs]
    # The first as the pipeline starts it; the others together, since two processes take long to start.
    TrainingProcesses().train(folders[0], Slot("cpu", (), RANKS), lambda points: None)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    subprocess.run([*launch, str(tmp_path / "train.py"), *(str(one.path) for one in folders[1:])], check=True)
    for folder, objective in zip(folders, one, strict=True):
        optimizers = torch.load(folder.checkpoint, weights_only=True)["optimizers"]
        joined_step(objective)
        for name, expected in gradients(objective).items():
            moments = [weight["exp_avg"].flatten() for weight in optimizers[name]["state"].values()]
            found = torch.cat(moments) / (1 - optimizers[name]["param_groups"][0]["betas"][0])
            assert apart(found, expected) < ROUNDING
