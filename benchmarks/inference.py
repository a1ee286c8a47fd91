"""Images a second and peak memory of the one-step translator in each of its forms, and of SDEdit, ILVR and EGSDE.

The network is that of the digits experiment with random weights, which take the same time as trained ones. The FIDs
are means over the seeds of the digits study (docs/results/digits.json) at the same settings; EGSDE has none, because
the study does not have its factor.
"""

import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import default_device, in_a_process, peak_mib
from benchmarks.record import record, say
from benchmarks.timing import Timing, interleaved
from rdmd import config
from rdmd.baselines.egsde import EGSDE, build_domain_classifier
from rdmd.baselines.ilvr import ILVR
from rdmd.baselines.sdedit import SDEdit
from rdmd.distillation.generator import Generator
from rdmd.errors import reporting
from rdmd.networks.build import build_denoiser
from rdmd.serving.export import export_onnx
from rdmd.serving.model import Model

ROOT = Path(__file__).parents[1]
BATCHES = (1, 32, 128)
# The baselines take a hundred times as long.
BASELINE_BATCHES = (1, 32)
# Images of one request.
SERVED_BATCHES = (1, 32, 128)

# Settings of the digits study (docs/results/digits.json).
SDEDIT = {"sigma": 2.0, "steps": 10}
ILVR_SETTINGS = {"factor": 4, "sigma_stop": 0.8, "steps": 100}
EGSDE_STEPS = 50
LAMBDA = 0.01

Translate = Callable[[Tensor], object]
ONE_STEP = ("eager", "compiled", "onnx")
BASELINES = ("sdedit", "ilvr", "egsde")


def main() -> None:
    """Measure and record."""
    device = default_device()
    settings = config.load(ROOT / "experiments" / "digits.yaml")
    side, network = settings.preprocess.resolution, settings.network
    figures: dict[str, float] = {"side": side, **_fids()}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        folder = Path(name)
        best: dict[str, int] = {}
        for names, batches in ((ONE_STEP, BATCHES), (BASELINES, BASELINE_BATCHES)):
            translators = {name: build(name, network, side, device, folder) for name in names}
            timings: dict[int, dict[str, Timing]] = {}
            for batch in batches:
                say(f"batch {batch}: {', '.join(names)}")
                x = torch.rand(batch, 3, side, side, device=device) * 2 - 1
                contenders = {name: partial(translate, x) for name, translate in translators.items()}
                calls = max(1, 32 // batch) if names is ONE_STEP else 1
                timings[batch] = interleaved(contenders, device, rounds=5 if names is ONE_STEP else 3, calls=calls)
            for name in names:
                best[name] = max(batches, key=lambda batch: batch / timings[batch][name].spread.median)
                figures |= _rates(name, best[name], {batch: timing[name] for batch, timing in timings.items()})
        figures |= _served(network, side, folder, device)
        for name in (*ONE_STEP, *BASELINES):
            say(f"memory of {name}")
            for which, batch in (("batch_1", 1), ("best_batch", best[name])):
                figures[f"{name}_peak_mib_{which}"] = in_a_process(_peak, name, batch, network, side, device)
    record("inference", figures, device)


def _rates(name: str, best: int, timings: dict[int, Timing]) -> dict[str, float]:
    first, many = timings[1].spread, timings[best].spread
    return {
        f"{name}_images_per_second_batch_1": 1 / first.median,
        f"{name}_images_per_second_best_batch": best / many.median,
        f"{name}_best_batch": best,
        f"{name}_ms_batch_1": 1e3 * first.median,
        f"{name}_ms_batch_1_low": 1e3 * first.low,
        f"{name}_ms_batch_1_high": 1e3 * first.high,
    }


def _served(network: config.Network, side: int, folder: Path, device: torch.device) -> dict[str, float]:
    from benchmarks.serving_load import serving

    say("over HTTP")
    rng = np.random.default_rng(0)
    with serving(generator(network, side, device), network, side, folder) as server:
        timings = {}
        for batch in SERVED_BATCHES:
            images = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
            contender = {"http": lambda images=images: server.translate(images)}
            timings[batch] = interleaved(contender, device, rounds=7, calls=max(1, 8 // batch), warmup=2)["http"]
        best = max(timings, key=lambda batch: batch / timings[batch].spread.median)
        return _rates("http", best, timings) | {"http_peak_mib": server.peak_mib()}


def _peak(name: str, batch: int, network: config.Network, side: int, device: torch.device) -> float:
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as folder:
        translate = build(name, network, side, device, Path(folder))
        for _ in range(2):
            translate(torch.rand(batch, 3, side, side, device=device) * 2 - 1)
    return peak_mib(device)


def _fids() -> dict[str, float]:
    """Means over the seeds of the digits study."""
    rows = json.loads((ROOT / "docs" / "results" / "digits.json").read_text(encoding="utf-8"))["rows"]

    def mean(method: str, lam: float | None, settings: dict[str, float]) -> float:
        chosen = [
            row["fid"] for row in rows
            if row["method"] == method and row["lambda"] == lam and settings.items() <= row["settings"].items()
        ]  # fmt: skip
        return statistics.mean(chosen)

    return {
        "fid_one_step": mean("rdmd", LAMBDA, {}),
        "fid_sdedit": mean("sdedit", None, SDEDIT),
        "fid_ilvr": mean("ilvr", None, ILVR_SETTINGS),
    }


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


if __name__ == "__main__":
    with reporting(debug=False):
        main()
