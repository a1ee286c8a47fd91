"""Activations that autograd keeps at 256x256, and the number of samples that fit on 24 GiB.

The bytes are counted on the meta device, so on any machine: float32, with all activations kept and with
`launch.activation_checkpointing` at several levels. bf16 keeps between half and all of them. The recomputed block needs
some memory in addition. `largest_part_*` is the number of samples that fit beside the weights, gradients, Adam's
moments and averages, with a tenth of 24 GiB left free; it holds for `distill.fake_draws: own`, and
`largest_part_shared_*` for `shared`, which keeps the activations of two networks. `launch.accumulate` covers larger
batches. The time of both settings is measured at a size that this device can train.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.machine import default_device
from benchmarks.materials import accelerator_for, distill_run, write_images
from benchmarks.record import record, say
from benchmarks.timing import interleaved
from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.errors import reporting
from rdmd.networks.build import build_denoiser
from rdmd.training.distill import DistillObjective

SIDE = 256
CARD = 24 * 2**30
FREE_FOR_ACTIVATIONS = 0.9
FLOAT32 = 4
# Generator and fake denoiser with two moments each, gradients of one of them at a time, the average and the teacher.
COPIES = 9
# EDM's widths at 64x64, with two more levels.
NETWORK = config.ImageNetwork(
    kind="ddpmpp", model_channels=128, channel_mult=[1, 1, 2, 2, 2, 2], num_blocks=2, attn_resolutions=[16]
)
LEVELS = (None, 256, 128, 64, 8)
SMALL = config.ImageNetwork(
    kind="ddpmpp", model_channels=16, channel_mult=[1, 1, 2, 2], num_blocks=2, attn_resolutions=[8]
)


def main() -> None:
    """Count, measure and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--count", action="store_true", help="count alone, without timing")
    count_alone = parser.parse_args().count
    figures: dict[str, float] = {}
    with torch.device("meta"):
        network = build_denoiser(NETWORK, (3, SIDE, SIDE))
    parameters = sum(weight.numel() for weight in network.parameters())
    figures["parameters_256"] = parameters
    states = COPIES * FLOAT32 * parameters
    figures["states_gib_256"] = states / 2**30
    for least in LEVELS:
        name = "all_kept" if least is None else f"from_{least}"
        per_sample = kept_per_sample(network, SIDE, least)
        figures[f"gib_per_sample_{name}"] = per_sample / 2**30
        room = FREE_FOR_ACTIVATIONS * CARD - states
        figures[f"largest_part_{name}"] = int(room / per_sample)
        figures[f"largest_part_shared_{name}"] = int(room / (2 * per_sample))
    device = default_device()
    if not count_alone:
        figures |= _seconds(device)
    record("memory", figures, device)


def kept_per_sample(denoiser: nn.Module, side: int, least: int | None) -> float:
    """Bytes that autograd keeps for the backward pass, per sample, without the weights."""
    denoiser.model.recompute_activations(least)
    two, one = (_kept(denoiser, torch.empty(n, 3, side, side, device="meta")) for n in (2, 1))
    return two - one


def _kept(denoiser: nn.Module, x: Tensor) -> int:
    own = {weight.untyped_storage()._cdata for weight in denoiser.state_dict(keep_vars=True).values()}
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        kept.setdefault(saved.untyped_storage()._cdata, saved)
        return saved

    with saved_tensors_hooks(keep, lambda saved: saved):
        # Keep the output until the end: tensors that the hooks do not see are freed with it.
        out = denoiser(x, torch.empty(len(x), device="meta"))
    total = sum(saved.untyped_storage().nbytes() for storage, saved in kept.items() if storage not in own)
    del out
    return total


def _seconds(device: torch.device) -> dict[str, float]:
    """Time of a step with checkpointing, and with the batch in four parts, divided by a plain step."""
    on_gpu = device.type == "cuda"
    network, side, batch, rounds = (NETWORK, 256, 4, 7) if on_gpu else (SMALL, 32, 8, 7)
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
