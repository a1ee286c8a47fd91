"""Arithmetic and memory of a network's forward and backward pass, counted on shapes alone: no number is computed."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from rdmd import config
from rdmd.diffusion.loss import denoising_loss
from rdmd.networks.build import build_denoiser

FLOAT32 = 4


@dataclass(frozen=True)
class Work:
    """What one network takes, per sample except for `parameters`.

    FLOP are multiplications and additions (two a multiply-accumulate) of convolutions, products and attention, as
    `torch.utils.flop_counter` counts them. `activations` are the float32 bytes that autograd keeps for the backward,
    with attention's matrices, which fused kernels do without.
    """

    parameters: int
    forward_flop: float
    training_flop: float
    activations: float

    def teacher_flop(self, batch: int) -> float:
        """One step of the teacher: forward and backward."""
        return batch * self.training_flop

    def distill_flop(self, distill: config.Distill) -> float:
        """One step of distillation: the generator forward and backward, the teacher forward, and the fake denoiser too
        where its draws are its own; then `fake_steps` times the fake denoiser forward and backward, for all but the
        first of which the generator makes new samples."""
        k = distill.fake_steps
        forwards = k if distill.fake_draws == "shared" else k + 1
        return distill.batch * ((1 + k) * self.training_flop + forwards * self.forward_flop)

    def distill_activations(self, distill: config.Distill) -> float:
        """Of one sample: those of one network at a time, or with shared draws the generator's and the fake's."""
        return self.activations * (2 if distill.fake_draws == "shared" else 1)

    def teacher_bytes(self, batch: int) -> float:
        """Weights, gradients, two moments of Adam and the average, and one batch's activations."""
        return 5 * FLOAT32 * self.parameters + batch * self.activations

    def distill_bytes(self, batch: int) -> float:
        """Generator and fake denoiser with two moments each, gradients of one of them at a time, the average and the
        teacher, and one batch's activations."""
        return 9 * FLOAT32 * self.parameters + batch * self.activations


def work_of(network: config.Network, sample_shape: tuple[int, ...]) -> Work:
    """Count one denoising step of a fresh network on two and on one samples; the difference is a sample's."""
    with torch.device("meta"):
        denoiser = build_denoiser(network, sample_shape)
        one, two = (_count(denoiser, torch.empty(batch, *sample_shape), network.sigma_data) for batch in (1, 2))
    return Work(
        sum(weight.numel() for weight in denoiser.parameters()), *(b - a for a, b in zip(one, two, strict=True))
    )


def _count(denoiser: torch.nn.Module, x: Tensor, sigma_data: float) -> tuple[float, float, float]:
    """(FLOP forward, FLOP forward and backward, bytes kept between the two) of a batch on the meta device."""
    own = {weight.untyped_storage()._cdata for weight in denoiser.state_dict(keep_vars=True).values()}
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        # A storage's address tells it apart as long as it lives, which holding the tensor sees to.
        kept.setdefault(saved.untyped_storage()._cdata, saved)
        return saved

    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(keep, lambda saved: saved):
            loss = denoising_loss(denoiser, x, torch.empty(len(x)), torch.empty_like(x), sigma_data).mean()
        forward = counter.get_total_flops()
        loss.backward()
    held = sum(saved.untyped_storage().nbytes() for storage, saved in kept.items() if storage not in own)
    return forward, counter.get_total_flops(), held
