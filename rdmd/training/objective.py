"""What every training objective shares: optimizers, learning rates, gradient accumulation, the average of the weights.

An objective itself is a subclass whose `update` states its equations: `teacher`, `distill`, `domain_classifier`,
`neural_ot`, `cut`.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdmd.data.sampling import StepRandom, derived_seed, seed_global
from rdmd.diffusion.noise import NoisyBatch
from rdmd.networks.codec import load_codec
from rdmd.training.compute import compute_for
from rdmd.training.run_config import TrainingRun, run_name

# Samples in a preview image.
PREVIEW = 32


class EMA:
    """Keeps `averaged`, a copy of a module whose weights follow it: w <- d w + (1 - d) w_now.

    The decay d increases as min(decay, (1 + t) / (10 + t)) with the step t, so that the average forgets the start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.averaged = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self._followed: list[Tensor] = list(module.parameters())
        self._weights: list[Tensor] = list(self.averaged.parameters())

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Move the average after optimizer step `t`, counted from 0."""
        decay = min(self.decay, (1 + t) / (10 + t))
        torch._foreach_lerp_(self._weights, self._followed, 1 - decay)


# The share of the steps taken, 0 to 1 -> factor of the learning rate, 1 to 0 (cosine: Loshchilov and Hutter 2017,
# eq. 5).
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda taken: 1.0,
    "linear": lambda taken: 1.0 - taken,
    "cosine": lambda taken: (1.0 + math.cos(math.pi * taken)) / 2.0,
}


@dataclass(frozen=True)
class Trial:
    """What an evaluation computes: the averaged network at each lambda, or at None where lambda is no input.

    `inputs` (n, ...) are the same every time. `from_source`: they are sources, to which outputs should be near.
    """

    inputs: Tensor
    networks: Mapping[float | None, Callable[[Tensor], Tensor]]
    from_source: bool


class Objective(ABC):
    """A training problem: networks, data, and one optimizer step.

    `modules` and `optimizers`, by name, are what a checkpoint holds beside the average `ema`. Learning rates increase
    linearly over the first `warmup` steps and follow `decay` over the whole run. `seed` is of the experiment's seed
    and the run's name, so every run of an experiment has its own batches, noise and initial weights.
    """

    ema: EMA

    def __init__(self, run: TrainingRun, accelerator: Accelerator, *, warmup: int = 0, decay: str = "constant") -> None:
        self.device = accelerator.device
        self.seed = derived_seed(run.seed, run_name(run))
        seed_global(derived_seed(self.seed, "initial weights"), self.device)
        self.compute = compute_for(run, accelerator)
        self.codec = None if run.codec is None else load_codec(Path(), run.codec, self.device)
        self.batch_size = run.settings.batch // accelerator.num_processes
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._steps, self._warmup, self._decay = run.settings.steps, warmup, decay
        self._learning_rates: dict[str, float] = {}
        self._callables: dict[str, nn.Module] = {}

    def trained(
        self, name: str, module: nn.Module, *, lr: float, beta1: float, ema: float | None = None
    ) -> Callable[..., Tensor]:
        """Put `module` under training and return the function to call for outputs that are differentiated. With `ema`
        the average follows this module."""
        self.modules[name] = self.compute.placed(module)
        if ema is not None:
            self.ema = EMA(module, ema)
        self._callables[name] = self.compute.trained(module)
        self._learning_rates[name] = lr
        # One kernel for all weights. Without accelerate's wrapper, which is for fp16 and costs time at every step.
        self.optimizers[name] = torch.optim.Adam(module.parameters(), lr=lr, betas=(beta1, 0.999), fused=True)
        return self.compute.call(self._callables[name])

    def step(self, t: int, random: StepRandom) -> dict[str, Tensor]:
        """Take optimizer step `t` (from 0). Returns scalars to log, still on the device."""
        self.compute.begin_step()
        factor = min(1.0, (t + 1) / max(1, self._warmup)) * DECAYS[self._decay](t / self._steps)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rates[name] * factor
        logged = self.update(random)
        self.ema.update(t)
        return logged

    @abstractmethod
    def update(self, random: StepRandom) -> dict[str, Tensor]:
        """Draw a batch and update the networks. Returns scalars to log, still on the device."""

    @abstractmethod
    def samples(self) -> tuple[Tensor, ...]:
        """Batches for a preview image: sources first, if there are any, each as networks see them."""

    def decoded(self, samples: Tensor) -> Tensor:
        """Samples as images for people and for metrics, where they are latents; otherwise as they are."""
        return samples if self.codec is None else self.codec.decoded(samples)

    def kept(self) -> nn.Module:
        """The network whose weights are the result of the run."""
        return self.ema.averaged

    def minimize(self, name: str, batch: NoisyBatch, loss: Callable[[NoisyBatch], Tensor]) -> Tensor:
        """One Adam step of the module `name` on the mean of `loss`, which gives (B,). Returns the losses, detached."""
        losses = []
        for part, share in self.parts(batch, name):
            part_loss = loss(part)
            (part_loss.mean() * share).backward()
            losses.append(part_loss.detach())
        self.apply_gradients(name)
        return torch.cat(losses)

    def parts(self, batch: NoisyBatch, *names: str) -> Iterator[tuple[NoisyBatch, float]]:
        """The parts of a batch with their share of it, by which the mean loss of each counts. Processes average their
        gradients of the modules `names` over the last part's backward pass alone."""
        return self.compute.accumulated(batch, *(self._callables[name] for name in names))

    def apply_gradients(self, name: str) -> None:
        """One Adam step of the module `name` with the gradients that it has, which are cleared."""
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)


def at_largest(values: Tensor, of: Tensor) -> Tensor:
    """The entry of `of` (B,) where `values` (B,) is largest, as a scalar on the device. Indexing with a scalar would
    make the host wait for the device."""
    return of.index_select(0, values.argmax(dim=0, keepdim=True)).squeeze(0)
