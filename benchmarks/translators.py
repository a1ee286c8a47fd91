"""The one-step translator in each form that runs on this machine, and three baselines, on the same network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdmd import config
from rdmd.baselines.egsde import EGSDE, build_domain_classifier
from rdmd.baselines.ilvr import ILVR
from rdmd.baselines.sdedit import SDEdit
from rdmd.distillation.generator import Generator
from rdmd.networks.build import build_denoiser
from rdmd.serving.export import export_onnx
from rdmd.serving.model import Model

# Settings of the digits study (docs/results/digits.json).
SDEDIT = {"sigma": 2.0, "steps": 10}
ILVR_SETTINGS = {"factor": 4, "sigma_stop": 0.8, "steps": 100}
EGSDE_STEPS = 50
LAMBDA = 0.01

Translate = Callable[[Tensor], object]
ONE_STEP = ("eager", "compiled", "onnx")
BASELINES = ("sdedit", "ilvr", "egsde")


def generator(network: config.Network, side: int, device: torch.device) -> Generator:
    """A generator with random weights, in the form that `load_generator` returns."""
    torch.manual_seed(0)
    return Generator(build_denoiser(network, (3, side, side)), 1.0).eval().requires_grad_(False).to(device)


def build(name: str, network: config.Network, side: int, device: torch.device, folder: Path) -> Translate:
    """Build one of `ONE_STEP` or `BASELINES`: it takes images (B, 3, side, side) in [-1, 1] on `device`.

    folder: for files."""
    G = generator(network, side, device)
    rng = torch.Generator(device).manual_seed(0)
    if name == "eager":
        return torch.no_grad()(G)
    if name == "compiled":
        return torch.no_grad()(torch.compile(G, dynamic=False))
    if name == "onnx":
        return _onnx(G, side, folder / "generator.onnx")
    if name == "sdedit":
        method = SDEdit(G.denoiser, SDEDIT["sigma"], SDEDIT["steps"])
    elif name == "ilvr":
        method = ILVR(G.denoiser, ILVR_SETTINGS["factor"], ILVR_SETTINGS["sigma_stop"], ILVR_SETTINGS["steps"])
    else:
        classifier = build_domain_classifier(network, (3, side, side)).eval().requires_grad_(False).to(device)
        method = EGSDE(G.denoiser, classifier, sigma_0=1.0, steps=EGSDE_STEPS, repel=10.0, attract=1.0, factor=2)
    return lambda x: method(x, rng)


def _onnx(G: Generator, side: int, file: Path) -> Translate:
    import onnxruntime

    if not file.exists():
        export_onnx(Model(G.cpu(), (3, side, side), "crop", torch.device("cpu")), file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=onnxruntime.get_available_providers())

    def translate(x: Tensor) -> object:
        images = ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return session.run(None, {"source": np.ascontiguousarray(images)})

    return translate
