"""How a run's networks are computed: where, in which precision and layout, compiled or not, how much at once."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rdmd import config
from rdmd.errors import UserError
from rdmd.networks.unet import DDPMPP
from rdmd.training.objective import NoisyBatch
from rdmd.training.run_config import DistillRun, TeacherRun

# What `torch.compile` calls the ways of compiling that a run may ask for.
MODES = {"on": "default", "cuda_graphs": "reduce-overhead"}


@dataclass(frozen=True)
class Compute:
    """A run's settings of this kind, resolved for the device at hand. `compile_mode` is None where nothing is
    compiled; `layout` is the memory format of the weights of convolutions."""

    accelerator: Accelerator
    bf16: bool
    compile_mode: str | None
    layout: torch.memory_format
    accumulate: int
    recompute_from: int | None

    def placed(self, denoiser: nn.Module) -> nn.Module:
        """`denoiser` itself, on the device and in the layout."""
        return denoiser.to(device=self.accelerator.device, memory_format=self.layout)

    def trained(self, module: nn.Module) -> nn.Module:
        """What to call for an output that is differentiated: `module`, compiled in place, or the wrapper that averages
        its gradients over processes. Called once, after the average was made of the module."""
        for part in module.modules():
            if isinstance(part, DDPMPP):
                part.recompute_activations(self.recompute_from)
        self.compiled(module)
        if self.accelerator.num_processes == 1:
            return module
        return self.accelerator.prepare_model(module)

    def frozen(self, denoiser: nn.Module) -> nn.Module:
        """`denoiser` as it is fastest where it is only read: without gradients, compiled, and under bf16 with the
        weights of convolutions and linear layers held in what autocast would round them to at every call."""
        denoiser.eval().requires_grad_(False)
        if self.bf16:
            for part in denoiser.modules():
                if isinstance(part, nn.Conv2d | nn.Linear):
                    part.to(torch.bfloat16)
        self.compiled(denoiser)
        return denoiser

    def compiled(self, module: nn.Module) -> None:
        """Compile in place, which leaves the names in the state dict alone."""
        if self.compile_mode is not None:
            module.compile(mode=self.compile_mode, dynamic=False)

    def begin_step(self) -> None:
        """Called before a step's first forward pass: the memory behind the last step's outputs may be used again."""
        if self.compile_mode == MODES["cuda_graphs"]:
            torch.compiler.cudagraph_mark_step_begin()

    def call(self, module: nn.Module) -> Callable[..., Tensor]:
        """`module` as a function, under autocast where the precision is bf16. Networks alone are: losses, their weights
        and their reductions stay in float32."""
        if not self.bf16:
            return module

        def under_autocast(*inputs: Tensor) -> Tensor:
            with self.accelerator.autocast():
                return module(*inputs)

        return under_autocast

    def accumulated(self, batch: NoisyBatch, *modules: nn.Module) -> Iterator[tuple[NoisyBatch, float]]:
        """The parts of a batch with their share of it, by which the mean loss of each counts. Processes average their
        gradients of `modules` over the last one's backward pass alone."""
        parts = batch.parts(self.accumulate)
        for part in parts:
            with ExitStack() as apart:
                if part is not parts[-1]:
                    for module in modules:
                        apart.enter_context(self.accelerator.no_sync(module))
                yield part, len(part) / len(batch)


def compute_of(run: TeacherRun | DistillRun, accelerator: Accelerator) -> Compute:
    """The run's `Compute` on the accelerator's device.

    Raises UserError where compiling is asked for and cannot be done here.
    """
    image = isinstance(run.network, config.ImageNetwork)
    mode = _compile_mode(run.compute.compile, image, accelerator.device)
    # Tensor cores want channels last. Eager group norm on a GPU does not: it would copy to and fro at every norm.
    last = image and mode is not None and accelerator.device.type == "cuda"
    return Compute(
        accelerator,
        bf16=run.precision == "bf16",
        compile_mode=mode,
        layout=torch.channels_last if last else torch.preserve_format,
        accumulate=run.compute.accumulate,
        recompute_from=run.compute.activation_checkpointing,
    )


def _compile_mode(setting: str, image: bool, device: torch.device) -> str | None:
    if setting == "off":
        return None
    missing = _missing_for_compilation(device)
    if setting == "auto":
        # On a CPU compiling takes minutes, and makes the point network slower.
        return MODES["on"] if image and device.type == "cuda" and missing is None else None
    if missing is not None:
        raise UserError(
            f"launch.compile is {setting}, which needs {missing}, and there is none here; install one, or "
            "set launch.compile to off."
        )
    return MODES[setting]


def _missing_for_compilation(device: torch.device) -> str | None:
    """What torch.compile would miss on this machine."""
    compilers = [os.environ.get("CXX" if device.type == "cpu" else "CC", ""), "g++", "gcc", "clang++", "clang", "cc"]
    if not any(name and shutil.which(name) for name in compilers):
        return "a C and C++ compiler"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton"
    return None
