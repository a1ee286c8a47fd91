"""What it takes to judge 50,000 samples, none of which is written to disk, and exact transport of 10,000 points.

Each part runs in a process of its own, whose peak memory is its own. On a CPU the features are those of the pipeline's
classifier (64 numbers a picture), and InceptionV3 is timed on a few pictures; on a GPU InceptionV3 sees all of them.
Weights and pictures are random: they cost what others cost.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.machine import default_device
from benchmarks.peak import peak_mib, resident_peak_mib
from benchmarks.record import record, say
from rdmd.dry_run.materials import random_inception
from rdmd.errors import reporting
from rdmd.evaluation import realism, transport
from rdmd.evaluation.classifier import FeatureClassifier
from rdmd.evaluation.features import FeatureCache, FeatureNetwork, features_of
from rdmd.networks.classifier import ClassifierNet

ROOT = Path(__file__).parents[1]
SAMPLES = 50_000
SIDE = 64
DIM = 64
POINTS = 10_000
INCEPTION_SAMPLES = 32
BATCH = 256

Result = TypeVar("Result")


def main() -> None:
    """Measure, and record; or, as a child, print the figures of one part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), help="print the figures of one part as JSON")
    part = parser.parse_args().part
    if part is not None:
        print(json.dumps(PARTS[part]()))
        return
    figures: dict[str, float] = {"samples": SAMPLES, "side": SIDE, "points": POINTS}
    for name in PARTS:
        say(f"{name}; it takes minutes")
        command = [sys.executable, "-m", "benchmarks.evaluation", "--part", name]
        figures |= json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
    record("evaluation", figures, default_device())


def features() -> dict[str, float]:
    """50,000 pictures through the feature network, and once more from the cache."""
    device = default_device()
    network = _inception(device) if device.type == "cuda" else _classifier(device)
    before = resident_peak_mib()
    pictures = _pictures(SAMPLES)
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as folder:
        cache = FeatureCache(Path(folder))
        first, seconds = _timed(lambda: cache.features_of(network, pictures, BATCH, device))
        again, cached = _timed(lambda: cache.features_of(network, pictures, BATCH, device))
        kept = sum(file.stat().st_size for file in Path(folder).rglob("*.pkl"))
    assert torch.equal(first, again)
    return {
        "features_dim": network.dim,
        "features_seconds": seconds,
        "features_images_per_second": SAMPLES / seconds,
        "features_cached_seconds": cached,
        "features_cached_over_first": cached / seconds,
        "features_cache_mib": kept / 2**20,
        "features_peak_mib": resident_peak_mib(),
        "features_peak_mib_before_pictures": before,
    }


def inception() -> dict[str, float]:
    """InceptionV3 on few pictures."""
    device = default_device()
    network = _inception(device)
    pictures = _pictures(INCEPTION_SAMPLES)
    features_of(network, pictures[:2], 2, device)
    _, seconds = _timed(lambda: features_of(network, pictures, INCEPTION_SAMPLES, device))
    return {
        "inception_images_per_second": len(pictures) / seconds,
        "inception_peak_mib": peak_mib(device),
    }


def metrics() -> dict[str, float]:
    """FID, KID, precision and recall of 50,000 against 50,000, from their features."""
    rng = torch.Generator().manual_seed(0)
    generated, reference = (torch.randn(SAMPLES, DIM, generator=rng, dtype=torch.float64) for _ in range(2))
    figures = {"metrics_dim": DIM}
    _, figures["fid_seconds"] = _timed(lambda: realism.fid(generated, reference))
    _, figures["kid_seconds"] = _timed(lambda: realism.kid(generated, reference, 0))
    _, figures["precision_recall_seconds"] = _timed(lambda: realism.precision_recall(generated, reference))
    return figures | {"metrics_peak_mib": resident_peak_mib()}


def exact_transport() -> dict[str, float]:
    """The exact plan between 10,000 and 10,000 points on the plane."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(POINTS, 2, generator=rng), 0.5 * torch.randn(POINTS, 2, generator=rng)
    transport.exact_plan(x[:50], y[:50])
    before = resident_peak_mib()
    _, seconds = _timed(lambda: transport.exact_plan(x, y))
    return {
        "transport_seconds": seconds,
        "transport_peak_mib": resident_peak_mib(),
        "transport_peak_mib_before": before,
        "transport_cost_matrix_mib": POINTS**2 * 8 / 2**20,
    }


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "features": features, "inception": inception, "metrics": metrics, "transport": exact_transport
}  # fmt: skip


def _classifier(device: torch.device) -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureClassifier(ClassifierNet(SIDE, DIM, 10), SIDE).to(device)


def _inception(device: torch.device) -> FeatureNetwork:
    return random_inception(device, seed=0)


def _pictures(count: int) -> Tensor:
    return torch.randint(256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun


if __name__ == "__main__":
    with reporting(debug=False):
        main()
