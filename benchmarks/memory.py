"""The memory of a step of distillation for two sizes of network at 64x64, at 256x256 and on latents 64x64x4.

Counted: the activations that autograd keeps for the backward pass, in bytes for each sample and network, as on a GPU
without compilation, in float32 and under bf16, kept whole or recomputed by `launch.activation_checkpointing`. The
tensors have shapes and no values, so that the counts hold on any machine. `states_gib_*` are the weights, gradients,
Adam's moments, the average and the teacher in float32. `largest_part_*` is the number of samples that fit on 24 GiB
beside these, with a tenth left free, for `distill.fake_draws: own`; `largest_part_shared_*` is that for `shared`, which
keeps the activations of two networks.

Measured: the peak of a whole step in a process of its own, as resident memory on a CPU and allocated memory on a GPU,
without what the process needs before. The difference between batches of 2 and 1 is that of a sample. The time of two
settings is measured at a size that this device can train.
"""

import argparse
import multiprocessing
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.machine import default_device
from benchmarks.materials import accelerator_for, distill_run, write_images
from benchmarks.record import record, say
from benchmarks.timing import interleaved
from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.data.view import view_of
from rdmd.errors import reporting
from rdmd.networks.build import build_denoiser
from rdmd.training.distill import DistillObjective
from rdmd.training.run_config import Shards

CARD = 24 * 2**30
FREE_FOR_ACTIVATIONS = 0.9
FLOAT32 = 4
# Generator and fake denoiser with two moments each, gradients of one of them at a time, the average and the teacher.
COPIES = 9


class Case(NamedTuple):
    """A network and the samples that it sees. `level` is a resolution from which activations are recomputed."""

    network: config.ImageNetwork
    channels: int
    side: int
    level: int


def _case(side: int, channels: int, model_channels: int) -> Case:
    """The widths of EDM's network at 64x64 for that size; with two more levels, and half the blocks, at 256x256."""
    mult, blocks, level = ([1, 1, 2, 2, 2, 2], 2, 64) if side == 256 else ([1, 2, 2, 2], 4, 16)
    network = config.ImageNetwork(
        kind="ddpmpp", model_channels=model_channels, channel_mult=mult, num_blocks=blocks, attn_resolutions=[16]
    )
    return Case(network, channels, side, level)


CASES = {
    "64_30m": _case(64, 3, 88), "64_60m": _case(64, 3, 128),
    "256_30m": _case(256, 3, 96), "256_60m": _case(256, 3, 136),
    "latent_30m": _case(64, 4, 88), "latent_60m": _case(64, 4, 128),
}  # fmt: skip
# What is measured: the settings, of the run or of `launch`, and the batches. A CPU's memory is shared with others.
SETTINGS: dict[str, dict[str, Any]] = {
    "own": {"fake_draws": "own"},
    "shared": {},
    "bf16": {"fake_draws": "own", "precision": "bf16"},
    "recomputed": {"fake_draws": "own", "recomputed": True},
    "accumulated": {"fake_draws": "own", "accumulate": 2},
}
MEASURED = [
    *(("64_30m", which, (1, 2)) for which in ("own", "shared", "recomputed", "bf16")),
    ("64_30m", "accumulated", (2,)), ("latent_30m", "own", (1, 2)), ("256_30m", "recomputed", (1, 2)),
    ("64_60m", "own", (1, 2)), ("latent_60m", "own", (1, 2)), ("256_30m", "own", (1,)), ("256_60m", "recomputed", (1,)),
]  # fmt: skip
SMALL = config.ImageNetwork(
    kind="ddpmpp", model_channels=16, channel_mult=[1, 1, 2, 2], num_blocks=2, attn_resolutions=[8]
)
# That of the published autoencoders for images of 512x512, by the numbers in their config.json.
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


def main() -> None:
    """Count, measure and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--skip", nargs="*", choices=("peaks", "seconds"), default=[], help="what is not measured")
    skipped = parser.parse_args().skip
    figures: dict[str, float] = {}
    for name, case in CASES.items():
        figures |= _counted(name, case)
    figures["gib_per_sample_decoder_512"] = _decoder() / 2**30
    device = default_device()
    if "peaks" not in skipped:
        figures |= _peaks(device)
    if "seconds" not in skipped:
        figures |= _seconds(device)
    record("memory", figures, device)


def _counted(name: str, case: Case) -> dict[str, float]:
    with torch.device("meta"):
        network = build_denoiser(case.network, (case.channels, case.side, case.side))
    parameters = sum(weight.numel() for weight in network.parameters())
    states = COPIES * FLOAT32 * parameters
    figures = {f"parameters_{name}": float(parameters), f"states_gib_{name}": states / 2**30}
    for precision in ("float32", "bf16"):
        for level in (None, case.level):
            which = f"{name}_{precision}" + ("" if level is None else f"_from_{level}")
            per_sample = kept_per_sample(case, level, bf16=precision == "bf16")
            room = FREE_FOR_ACTIVATIONS * CARD - states
            figures[f"gib_per_sample_{which}"] = per_sample / 2**30
            figures[f"largest_part_{which}"] = int(room / per_sample)
            figures[f"largest_part_shared_{which}"] = int(room / (2 * per_sample))
    return figures


def kept_per_sample(case: Case, level: int | None, *, bf16: bool = False) -> float:
    """Bytes that autograd keeps for the backward pass, per sample, without the weights."""
    # Tensors of a GPU that no GPU holds: autocast differs between devices, and would be off without one.
    with FakeTensorMode(), torch.device("cuda"):
        denoiser = build_denoiser(case.network, (case.channels, case.side, case.side))
        denoiser.model.recompute_activations(level)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.set_autocast_enabled("cuda", bf16)
        two, single = (
            _kept(denoiser, torch.empty(n, case.channels, case.side, case.side), torch.empty(n)) for n in (2, 1)
        )
        torch.set_autocast_enabled("cuda", False)
    return two - single


def _decoder() -> float:
    """Bytes that `distill.cost_on: pixels` keeps beside, for each image of 512x512, in float32."""
    from diffusers import AutoencoderKL

    with FakeTensorMode():
        autoencoder = AutoencoderKL(**AUTOENCODER).requires_grad_(False)
        two, single = (_kept(autoencoder.decoder, torch.empty(n, 4, 64, 64, requires_grad=True)) for n in (2, 1))
    return two - single


def _peaks(device: torch.device) -> dict[str, float]:
    """The peaks of `MEASURED`, each in a process of its own."""
    figures = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as alone:
        for name, which, batches in MEASURED:
            for batch in batches:
                figure = f"peak_mib_{name}_{which}_batch_{batch}"
                figures[figure] = alone.submit(_peak, name, which, batch, str(device)).result()
                say(f"{figure} {figures[figure]:.0f}")
    return figures


def _peak(name: str, which: str, batch: int, device: str) -> float:
    """The peak in MiB of one step, after Adam's moments exist."""
    case, changes, on = CASES[name], dict(SETTINGS[which]), torch.device(device)
    compute = config.Compute(
        compile="off",
        accumulate=changes.pop("accumulate", 1),
        activation_checkpointing=case.level if changes.pop("recomputed", False) else None,
    )
    samples = torch.randn(4, case.side, case.side, case.channels)
    # Imports and the first kernels need memory, too.
    nn.Conv2d(3, 3, 3)(samples[..., :3].permute(0, 3, 1, 2)).mean().backward()
    before = _memory(on, "VmRSS")
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as temporary:
        shards = Shards(path=Path(temporary), digest="random")
        run = distill_run(
            Path(temporary), case.network, shards, case.side, batch, case.channels, compute=compute, **changes
        )
        objective = DistillObjective(run, accelerator_for(run, on), lambda *_: view_of(samples, on))
    for key, optimizer in objective.optimizers.items():
        for weight in objective.modules[key].parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    objective.step(0, StepRandom(0, 0, 0, on))
    return _memory(on, "VmHWM") - before


def _memory(device: torch.device, which: str) -> float:
    """MiB of this process: allocated on a GPU at the peak, or a line of Linux's /proc/self/status."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None, "this benchmark reads Linux's /proc"
    return int(found[1]) / 2**10


def _kept(network: nn.Module, *inputs: Tensor) -> int:
    own = {weight.untyped_storage()._cdata for weight in network.state_dict(keep_vars=True).values()}
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        kept.setdefault(saved.untyped_storage()._cdata, saved)
        return saved

    with saved_tensors_hooks(keep, lambda saved: saved):
        # Keep the output until the end: tensors that the hooks do not see are freed with it.
        out = network(*inputs)
    total = sum(saved.untyped_storage().nbytes() for storage, saved in kept.items() if storage not in own)
    del out
    return total


def _seconds(device: torch.device) -> dict[str, float]:
    """Time of a step with checkpointing, and with the batch in four parts, divided by a plain step."""
    on_gpu = device.type == "cuda"
    network, side, batch, rounds = (CASES["256_60m"].network, 256, 4, 7) if on_gpu else (SMALL, 32, 8, 7)
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        shards = write_images(Path(name) / "images", 64, side)
        ways = {
            "plain": {}, "checkpointed": {"activation_checkpointing": side // 4}, "in_four_parts": {"accumulate": 4},
        }  # fmt: skip
        contenders = {}
        for which, changes in ways.items():
            say(which)
            compute = config.Compute(compile="off", **changes)
            run = distill_run(Path(name), network, shards, side, batch, compute=compute)
            contenders[which] = _Steps(DistillObjective(run, accelerator_for(run, device)), device)
        timings = interleaved(contenders, device, rounds)
    figures: dict[str, float] = {"timed_side": side, "timed_batch": batch}
    for which in ("checkpointed", "in_four_parts"):
        figures |= timings[which].over(timings["plain"]).figures(f"{which}_step_over_plain")
    return figures


class _Steps:
    def __init__(self, objective: DistillObjective, device: torch.device) -> None:
        self.objective, self.device, self.t = objective, device, 0

    def __call__(self) -> None:
        self.objective.step(self.t, StepRandom(0, 0, self.t, self.device))
        self.t += 1


if __name__ == "__main__":
    with reporting(debug=False):
        main()
