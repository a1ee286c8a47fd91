"""How a run computes its networks: device, precision, memory layout, compilation, parts of a batch."""

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
from rdmd.diffusion.noise import NoisyBatch
from rdmd.errors import UserError
from rdmd.networks.unet import DDPMPP
from rdmd.networks.unet2d import UNet2D
from rdmd.training.run_config import DistillRun, TeacherRun, TrainingRun

# The modes of `torch.compile` behind the values of `launch.compile`.
MODES = {"on": "default", "cuda_graphs": "reduce-overhead"}


@dataclass(frozen=True)
class Compute:
    """The settings of a run, resolved for its device. `compile_mode` is None where nothing is compiled; `layout` is the
    memory format of the convolutions' weights."""

    accelerator: Accelerator
    bf16: bool
    compile_mode: str | None
    layout: torch.memory_format
    accumulate: int
    recompute_from: int | None

    def placed(self, module: nn.Module) -> nn.Module:
        """`module` itself, on the device and in the layout."""
        return module.to(self.accelerator.device).to(memory_format=self.layout)

    def trained(self, module: nn.Module) -> nn.Module:
        """`module`, compiled in place, or its wrapper that averages gradients over processes: the module to call for
        outputs that are differentiated. Call this once, after the copy for the average."""
        for part in module.modules():
            if isinstance(part, DDPMPP | UNet2D):
                part.recompute_activations(self.recompute_from)
        self.compiled(module)
        if self.accelerator.num_processes == 1:
            return module
        return self.accelerator.prepare_model(module)

    def frozen(self, denoiser: nn.Module) -> nn.Module:
        """`denoiser` without gradients and compiled. Under bf16 its convolutions and linear layers keep the weights to
        which autocast would round them at every call."""
        denoiser.eval().requires_grad_(False)
        if self.bf16:
            for part in denoiser.modules():
                if isinstance(part, nn.Conv2d | nn.Linear):
                    part.to(torch.bfloat16)
        self.compiled(denoiser)
        return denoiser

    def compiled(self, module: nn.Module) -> None:
        """Compile in place, which keeps the names in the state dict."""
        if self.compile_mode is not None:
            module.compile(mode=self.compile_mode, dynamic=False)

    def begin_step(self) -> None:
        """Allow CUDA graphs to reuse the memory of the last step's outputs. Call this before a step's first pass."""
        if self.compile_mode == MODES["cuda_graphs"]:
            torch.compiler.cudagraph_mark_step_begin()

    def call(self, module: nn.Module) -> Callable[..., Tensor]:
        """`module` as a function with float32 outputs, under autocast where the precision is bf16. Only networks run
        under autocast: losses, their weights and reductions stay in float32."""
        if not self.bf16:
            return module

        def under_autocast(*inputs: Tensor) -> Tensor:
            with self.accelerator.autocast():
                return module(*inputs).float()

        return under_autocast

    def accumulated(self, batch: NoisyBatch, *modules: nn.Module) -> Iterator[tuple[NoisyBatch, float]]:
        """The parts of a batch, each with its share of the samples as the weight of its mean loss. Processes average
        their gradients of `modules` in the backward pass of the last part alone."""
        parts = batch.parts(self.accumulate)
        for part in parts:
            with ExitStack() as apart:
                if part is not parts[-1]:
                    for module in modules:
                        apart.enter_context(self.accelerator.no_sync(module))
                yield part, len(part) / len(batch)


def compute_for(run: TrainingRun, accelerator: Accelerator) -> Compute:
    """The run's `Compute` on the accelerator's device.

    Raises UserError if the run asks for compilation and this machine cannot compile.
    """
    # Baselines are not compiled: the potential's R1 penalty needs second derivatives, which compiled networks lack.
    settings = run.compute if isinstance(run, TeacherRun | DistillRun) else config.Compute(compile="off")
    image = not isinstance(run.network, config.PointNetwork)
    mode = _compile_mode(settings.compile, image, accelerator.device)
    # Convolutions are faster with channels last, but eager group norm on a GPU copies to another layout and back.
    last = image and (mode is not None or accelerator.device.type == "cpu")
    return Compute(
        accelerator,
        bf16=run.precision == "bf16",
        compile_mode=mode,
        layout=torch.channels_last if last else torch.preserve_format,
        accumulate=settings.accumulate,
        recompute_from=settings.activation_checkpointing,
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
            f"launch.compile is {setting}, which needs {missing}, and there is none here; install one, or set "
            "launch.compile to off."
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
