"""A generator behind MLflow's server on the loopback, with a client."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import psutil

from benchmarks.machine import high_water_mib
from flows.registry.package import TRANSLATOR, copy_code, example
from flows.server import free_port, running
from rdmd import config
from rdmd.distillation.generator import Generator
from rdmd.errors import UserError
from rdmd.files import sha256_of
from rdmd.networks.build import save_weights
from rdmd.pipeline.model_card import ModelCard, write_model

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
        return max(high_water_mib(Path(f"/proc/{one.pid}/status")) for one in processes)


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
