"""Time and memory to evaluate 50,000 samples, and to solve exact transport for 10,000 points.

`python -m benchmarks.evaluation [PART ...]` runs some parts alone. Each part runs in its own process, so that it has
its own peak memory. On a CPU the features come from the pipeline's classifier (64 features), and InceptionV3
processes a few images only; on a GPU it processes all of them. Weights and images are random: they take the same time
as real ones.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.machine import default_device, in_a_process, peak_mib, resident_peak_mib
from benchmarks.record import record, say
from rdmd.errors import reporting
from rdmd.evaluation import realism, transport
from rdmd.evaluation.classifier import FeatureClassifier
from rdmd.evaluation.features import FeatureCache, FeatureNetwork, InceptionV3, features_of
from rdmd.networks.classifier import ClassifierNet

SAMPLES = 50_000
SIDE = 64
DIM = 64
POINTS = 10_000
INCEPTION_SAMPLES = 32
BATCH = 256

Result = TypeVar("Result")


def main() -> None:
    """Measure and record."""
    known = {part.__name__: part for part in (features, inception, metrics, exact_transport)}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["all", *known], default="all")
    parts = parser.parse_args().parts
    figures: dict[str, float] = {"samples": SAMPLES, "side": SIDE, "points": POINTS}
    for part in known.values() if parts == "all" else map(known.__getitem__, parts):
        say(f"{part.__name__}; it takes minutes")
        figures |= in_a_process(part)
    record("evaluation", figures, default_device())


def features() -> dict[str, float]:
    """Time the features of 50,000 images, first computed, then from the cache."""
    device = default_device()
    network = _inception(device) if device.type == "cuda" else _classifier(device)
    before = resident_peak_mib()
    images = _images(SAMPLES)
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as folder:
        cache = FeatureCache(Path(folder))
        first, seconds = _timed(lambda: cache.features_of(network, images, BATCH, device))
        again, cached = _timed(lambda: cache.features_of(network, images, BATCH, device))
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
        "features_peak_mib_before_images": before,
    }


def inception() -> dict[str, float]:
    """Time InceptionV3 on a few images."""
    device = default_device()
    network = _inception(device)
    images = _images(INCEPTION_SAMPLES)
    features_of(network, images[:2], 2, device)
    _, seconds = _timed(lambda: features_of(network, images, INCEPTION_SAMPLES, device))
    return {
        "inception_images_per_second": len(images) / seconds,
        "inception_peak_mib": peak_mib(device),
    }


def metrics() -> dict[str, float]:
    """FID, KID, precision and recall of 50,000 against 50,000, from their features; the latter two of a tenth of them
    also by torch-fidelity, in float64."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = torch.Generator().manual_seed(0)
    generated, reference = (torch.randn(SAMPLES, DIM, generator=rng, dtype=torch.float64) for _ in range(2))
    figures = {"metrics_dim": DIM}
    _, figures["fid_seconds"] = _timed(lambda: realism.fid(generated, reference))
    _, figures["kid_seconds"] = _timed(lambda: realism.kid(generated, reference, 0))
    _, figures["precision_recall_seconds"] = _timed(lambda: realism.precision_recall(generated, reference))
    some = generated[: SAMPLES // 10], reference[: SAMPLES // 10]
    ours, seconds = _timed(lambda: realism.precision_recall(*some))
    options = {"prc_neighborhood": realism.NEIGHBOURS, "prc_batch_size": 1000, "save_cpu_ram": True, "verbose": False}
    theirs, their_seconds = _timed(lambda: prc_features_to_metric(*some, **options))
    figures["precision_recall_fidelity_seconds_over_ours"] = their_seconds / seconds
    figures["precision_recall_difference"] = max(
        abs(ours.precision - theirs["precision"]), abs(ours.recall - theirs["recall"])
    )
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


def _classifier(device: torch.device) -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureClassifier(ClassifierNet(SIDE, DIM, 10), SIDE).to(device)


def _inception(device: torch.device) -> FeatureNetwork:
    """InceptionV3 as evaluation runs it, with random weights: they cost what others cost."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        """Keeps the weights that it was made with."""

        def load_state_dict(self, *_: object, **__: object) -> None:
            """torch-fidelity insists on loading something."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Untrained("inception", ["2048"], feature_extractor_weights_path=nothing)
    return InceptionV3(network.to(device), "random weights")


def _images(count: int) -> Tensor:
    return torch.randint(256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun


if __name__ == "__main__":
    with reporting(debug=False):
        main()
