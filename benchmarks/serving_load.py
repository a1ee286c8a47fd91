"""8 and 64 clients at once against a served digits model, a quarter of their requests wrong.

`python -m benchmarks.serving_load [--seconds N]`. A right request is one image as PNG in base64 and gets 200; a wrong
one gets 400. Anything else counts as a failure. The seconds per image are compared with those of the network alone, in
this process. The clients share the machine with the server.
"""

import argparse
import base64
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.machine import high_water_mib
from benchmarks.record import record, say
from benchmarks.timing import interleaved
from flows.registry.package import TRANSLATOR, copy_code, example
from flows.server import free_port, running
from rdmd import config
from rdmd.distillation.generator import Generator
from rdmd.errors import UserError, reporting
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.model_card import ModelCard, write_model

ROOT = Path(__file__).parents[1]
CLIENTS = (8, 64)
CPU = torch.device("cpu")
START_SECONDS = 180


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: psutil.Process

    def translate(self, images: np.ndarray) -> None:
        """Send one request of uint8 images (N, H, W, 3), as arrays in JSON."""
        body = json.dumps({"inputs": images.tolist()}).encode()
        request = urllib.request.Request(f"{self.url}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            answered = json.load(answer)["predictions"]
        assert len(answered) == len(images)

    def peak_mib(self) -> float:
        """Peak resident memory of its largest process (Linux)."""
        processes = [self.process, *self.process.children(recursive=True)]
        return max(high_water_mib(Path(f"/proc/{process.pid}/status")) for process in processes)


@contextmanager
def serving(G: Generator, network: config.Network, side: int, folder: Path) -> Iterator[Server]:
    """Run `mlflow models serve` of a generator for the length of the block."""
    weights = folder / "weights.safetensors"
    save_weights(G.denoiser, weights)
    card = ModelCard(
        kind="generator", experiment="benchmark", network=network, sample_shape=(3, side, side), fit="crop",
        sigma_init=G.sigma_init, lam=0.1, run="0" * 16, train_seconds=0.0, trained_on="nothing",
        sha256=sha256_of(weights), target_digest="",
    )  # fmt: skip
    write_model(folder / "generator", card, weights)
    copy_code(folder / "code")
    mlflow.pyfunc.save_model(
        folder / "model", python_model=str(TRANSLATOR), artifacts={"model": str(folder / "generator")},
        code_paths=[str(folder / "code" / "rdmd")], pip_requirements=[], input_example=example(card),
    )  # fmt: skip
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(folder / "model"),
               "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    # MLflow starts its server by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with running(command, subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        _wait(url)
        yield Server(url, psutil.Process(process.pid))


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise UserError(
                    f"MLflow's server at {url} did not start within {START_SECONDS} s; run `rdmd serve` to see why."
                ) from None
            time.sleep(0.5)


@dataclass
class Load:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    """Of each right request."""
    refused: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, wanted: int, got: int | str, seconds: float) -> None:
        """Count one answer."""
        with self.lock:
            if got != wanted:
                self.failures[f"{got} instead of {wanted}"] += 1
            elif got == 200:
                self.seconds.append(seconds)
            else:
                self.refused += 1


def bodies(side: int) -> list[tuple[bytes, int]]:
    """Requests with the HTTP status that each should get: three right ones before every wrong one."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    right = json.dumps({"inputs": [image]}).encode()
    wrong: list[object] = [
        {"inputs": ["not base64!"]}, {"inputs": [image[: len(image) // 2 // 4 * 4]]}, {"inputs": []}, {"inputs": 3},
        {"inputs": [[[1, 2], [3]]]}, {"inputs": [image, [[1]]]}, {}, [], {"inputs": [image] * 257},
        {"inputs": {"a": [1]}}, {"inputs": [None]},
    ]  # fmt: skip
    refused = [json.dumps(body).encode() for body in wrong] + [b"{", b"", b"\xff\xfe"]
    return [pair for body in refused for pair in ((right, 200), (right, 200), (right, 200), (body, 400))]


def client(server: Server, requests: list[tuple[bytes, int]], first: int, until: float, load: Load) -> None:
    """Send requests one after another, beginning with the `first`."""
    for body, wanted in itertools.islice(itertools.cycle(requests), first, None):
        if time.monotonic() > until:
            return
        request = urllib.request.Request(f"{server.url}/invocations", body, {"Content-Type": "application/json"})
        begun = time.perf_counter()
        got: int | str
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
                got = answer.status
        except urllib.error.HTTPError as error:
            error.read()
            got = error.code
        except OSError as error:
            got = type(error).__name__
        load.note(wanted, got, time.perf_counter() - begun)


def under_load(server: Server, requests: list[tuple[bytes, int]], clients: int, seconds: float) -> Load:
    """The answers to some clients at once."""
    load, until = Load(), time.monotonic() + seconds
    threads = [threading.Thread(target=client, args=(server, requests, 7 * i, until, load)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def main() -> int:
    """Measure and record. Exits with 1 if an answer was not the one that the request should get."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of clients (default 60)")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    settings = config.load(ROOT / "experiments" / "digits.yaml")
    side, network = settings.preprocess.resolution, settings.network
    G = Generator(build_denoiser(network, (3, side, side)).eval().requires_grad_(False), 1.0)
    x, requests = torch.zeros(1, 3, side, side), bodies(side)
    figures: dict[str, float] = {}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name, serving(G, network, side, Path(name)) as server:
        under_load(server, requests, 1, min(5.0, seconds))
        for clients in CLIENTS:
            before = server.peak_mib()
            load = under_load(server, requests, clients, seconds)
            # With the server at rest; within this process as everywhere here.
            bare = interleaved({"bare": lambda: G(x)}, CPU, rounds=20, calls=20)["bare"].spread.median
            say(f"{clients} clients: {len(load.seconds)} translated, {load.refused} refused, {dict(load.failures)}")
            failed += load.failures.total()
            cuts = statistics.quantiles(load.seconds, n=100)
            own = {
                "right": len(load.seconds), "wrong": load.refused, "failures": load.failures.total(),
                "images_per_second": len(load.seconds) / seconds, "p50_ms": 1000 * cuts[49], "p99_ms": 1000 * cuts[98],
                "bare_ms": 1000 * bare, "p50_over_bare": cuts[49] / bare, "p99_over_bare": cuts[98] / bare,
                "share_of_bare_throughput": len(load.seconds) / seconds * bare,
                "peak_mib": server.peak_mib(), "peak_growth_mib": server.peak_mib() - before,
            }  # fmt: skip
            figures |= {f"clients_{clients}_{key}": value for key, value in own.items()}
    record("serving_load", figures, CPU)
    return int(failed > 0)


if __name__ == "__main__":
    with reporting(debug=False):
        sys.exit(main())
