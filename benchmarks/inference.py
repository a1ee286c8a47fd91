"""Images a second and peak memory of the one-step translator in each of its forms, and of SDEdit, ILVR and EGSDE.

The network is that of the digits experiment with random weights, which take the same time as trained ones. The FIDs
are means over the seeds of the digits study (docs/results/digits.json) at the same settings; EGSDE has none, because
the study does not have its factor.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import default_device, peak_mib
from benchmarks.record import record, say
from benchmarks.timing import Timing, interleaved
from benchmarks.translators import BASELINES, ILVR_SETTINGS, LAMBDA, ONE_STEP, SDEDIT, build, generator
from rdmd import config
from rdmd.errors import reporting

ROOT = Path(__file__).parents[1]
BATCHES = (1, 32, 128)
# The baselines take a hundred times as long.
BASELINE_BATCHES = (1, 32)
# Images of one request.
SERVED_BATCHES = (1, 32, 128)


def main() -> None:
    """Measure and record; with --memory, print the peak memory of one translator."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--memory", nargs=2, metavar=("TRANSLATOR", "BATCH"), help="print its peak memory in MiB")
    given = parser.parse_args().memory
    device = default_device()
    settings = config.load(ROOT / "experiments" / "digits.yaml")
    side, network = settings.preprocess.resolution, settings.network
    if given is not None:
        print(_peak_here(given[0], int(given[1]), network, side, device))
        return
    figures: dict[str, float] = {"side": side, **_fids()}
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        folder = Path(name)
        best: dict[str, int] = {}
        for names, batches in ((ONE_STEP, BATCHES), (BASELINES, BASELINE_BATCHES)):
            translators = {one: build(one, network, side, device, folder) for one in names}
            timings: dict[int, dict[str, Timing]] = {}
            for batch in batches:
                say(f"batch {batch}: {', '.join(names)}")
                x = torch.rand(batch, 3, side, side, device=device) * 2 - 1
                contenders = {one: partial(translate, x) for one, translate in translators.items()}
                calls = max(1, 32 // batch) if names is ONE_STEP else 1
                timings[batch] = interleaved(contenders, device, rounds=5 if names is ONE_STEP else 3, calls=calls)
            for one in names:
                best[one] = max(batches, key=lambda batch: batch / timings[batch][one].spread.median)
                figures |= _rates(one, best[one], {batch: timing[one] for batch, timing in timings.items()})
        figures |= _served(network, side, folder, device)
        for one in (*ONE_STEP, *BASELINES):
            say(f"memory of {one}")
            figures[f"{one}_peak_mib_batch_1"] = _peak(one, 1)
            figures[f"{one}_peak_mib_best_batch"] = _peak(one, best[one])
    record("inference", figures, device)


def _rates(name: str, best: int, timings: dict[int, Timing]) -> dict[str, float]:
    one, many = timings[1].spread, timings[best].spread
    return {
        f"{name}_images_per_second_batch_1": 1 / one.median,
        f"{name}_images_per_second_best_batch": best / many.median,
        f"{name}_best_batch": best,
        f"{name}_ms_batch_1": 1e3 * one.median,
        f"{name}_ms_batch_1_low": 1e3 * one.low,
        f"{name}_ms_batch_1_high": 1e3 * one.high,
    }


def _served(network: config.Network, side: int, folder: Path, device: torch.device) -> dict[str, float]:
    from benchmarks.served import serving

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


def _peak(name: str, batch: int) -> float:
    command = [sys.executable, "-m", "benchmarks.inference", "--memory", name, str(batch)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def _peak_here(name: str, batch: int, network: config.Network, side: int, device: torch.device) -> float:
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


if __name__ == "__main__":
    with reporting(debug=False):
        main()
