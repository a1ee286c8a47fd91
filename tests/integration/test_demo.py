"""The demo: a real server, and its page in a headless Chromium."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.server import answers, free_port
from rdmd import config
from rdmd.cli import main
from rdmd.data.likeness import SourceStatistics
from rdmd.data.manifest import read_manifest
from rdmd.data.preprocess import preprocess
from rdmd.data.shards import stored_array
from rdmd.errors import UserError
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.evaluation.selection import mark_front
from rdmd.evaluation.table import write_metrics
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, write_model
from rdmd.pipeline.translate import translate_path
from rdmd.serving.demo import SAMPLES, Front, enlarged, reduced, sample_images
from rdmd.serving.model import open_folder
from rdmd.training.run_config import lambda_name
from tests.chromium import browser
from tests.conftest import ROOT, params, tiny_digits, tiny_points

# (cost, FID) by lambda; that of 0.5 is worse than its neighbour in both, so it is not on the front.
SWEEP = {0.02: (0.30, 10.0), 0.1: (0.10, 20.0), 0.5: (0.11, 30.0), 2.0: (0.05, 60.0)}
FRONT = [0.02, 0.1, 2.0]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of digits in the current folder: real shards, generators of random weights, made-up numbers."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text(params("digits", tiny_digits), encoding="utf-8")
    (root / "rdmd").symlink_to(ROOT / "rdmd")
    with contextlib.chdir(root):
        settings, layout = config.load(), Layout()
        for name in ("source", "target"):
            preprocess(settings, name, layout.shards / name)
        rows = []
        for lam, (cost, fid) in SWEEP.items():
            make_generator(settings, layout, lam)
            rows.append(
                Row(
                    method="rdmd",
                    lam=lam,
                    run=f"run-{lam:g}",
                    nfe=1,
                    cost=cost,
                    cost_se=0.001,
                    fid=fid,
                    fid_ci=(fid - 1, fid + 1),
                )
            )
        write_metrics(
            Metrics(
                experiment="digits",
                seed=0,
                features=FeaturesRecord(name="classifier", sha256="c" * 64, dim=16),
                n_source=64,
                n_reference=70,
                rows=mark_front(rows),
            ),
            layout.metrics,
        )
        yield root


def make_generator(settings: config.Settings, layout: Layout, lam: float) -> None:
    torch.manual_seed(round(100 * lam))
    denoiser = build_denoiser(settings.network, settings.sample_shape)
    with torch.no_grad():
        for weight in denoiser.parameters():
            # As built, what ends the network is almost zero, and every output is the same.
            weight.add_(torch.randn_like(weight), alpha=0.1)
    weights = Path(f"{lam:g}.safetensors")
    save_weights(denoiser, weights)
    card = ModelCard(
        kind="generator",
        experiment="digits",
        network=settings.network,
        sample_shape=settings.sample_shape,
        fit="crop",
        sigma_init=1.0,
        lam=lam,
        run=f"run-{lam:g}",
        train_seconds=1.0,
        trained_on="CPU",
        sha256=sha256_of(weights),
        source_digest=read_manifest(layout.shards / "source").digest,
        target_digest=read_manifest(layout.shards / "target").digest,
        source=SourceStatistics.of(stored_array(layout.shards / "source", "train")),
    )
    write_model(layout.generators / lambda_name(lam), card, weights)


# Notes every address outside this machine that the server asks for.
SITE = """
import sys
def note(event, arguments):
    if event == "socket.getaddrinfo" and str(arguments[0]) not in ("127.0.0.1", "::1", "localhost", "None"):
        print("asked for", arguments[0], flush=True)
sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "log.txt"


@pytest.fixture(scope="module")
def address(project: Path, log: Path) -> Iterator[str]:
    (log.parent / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    port = free_port()
    environment = os.environ | {"PYTHONPATH": f"{log.parent}{os.pathsep}{ROOT}", "TMPDIR": str(log.parent)}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "rdmd.cli", "demo", "--device", "cpu", "--port", str(port)], cwd=project,
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}/"):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
        server.terminate()
        assert server.wait(30) == 128 + signal.SIGTERM, log.read_text()
        socket.create_server(("127.0.0.1", port)).close()
        assert not list(log.parent.glob("rdmd-demo-*")), "uploaded images stay"
        assert "Traceback" not in log.read_text()
    finally:
        server.kill()
        server.wait()


def photograph(path: Path) -> Path:
    """24 megapixels, as a phone takes them."""
    small = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((6000, 4000), Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def pixels(address: str) -> np.ndarray:
    with urllib.request.urlopen(address, timeout=60) as response:
        return np.asarray(Image.open(io.BytesIO(response.read())).convert("RGB")).astype(int)


def test_a_photograph_is_translated_as_by_rdmd_translate_and_the_slider_steps_through_lambda(
    project: Path, address: str, log: Path, tmp_path: Path
):
    photo, small = photograph(tmp_path / "photo.jpg"), tmp_path / "small.png"
    # The page shows photographs at 1024 pixels.
    Image.fromarray(reduced(np.asarray(Image.open(photo)))).save(small)
    source = "document.querySelector('#chosen img').src"
    with browser() as tab:
        tab.open(address, 1200)
        tab.until(f"document.querySelectorAll('#all img').length === {len(FRONT)}")
        assert tab.get("document.querySelectorAll('#samples img').length") == SAMPLES
        sample = tab.get(source)
        tab.choose_file("#file input", photo)
        tab.until(f"{source} !== '{sample}'")
        every = tab.get("[...document.querySelectorAll('#all img')].map((image) => image.src)")
        tab.get("document.querySelector('#lambda input[type=range]').focus()")
        for _ in FRONT:
            tab.press("ArrowLeft")
        for lam, beside in zip(FRONT, every, strict=True):
            # The numbers come with the image.
            tab.until(f"document.querySelector('#numbers').innerText.startsWith('λ = {lam:g}')")
            cost, fid = SWEEP[lam]
            numbers = tab.get("document.querySelector('#numbers').innerText")
            assert f"FID {fid:.1f}" in numbers and f"cost {cost:#.3g}; of this image: cost" in numbers
            model = open_folder(project / "models" / "generators" / lambda_name(lam), CPU)
            translate_path(model, small, tmp_path / "out.png")
            expected = enlarged(np.asarray(Image.open(tmp_path / "out.png"))).astype(int)
            assert expected.std() > 10  # not one grey
            for shown in (tab.get(source), beside):
                # A level: another number of threads may round a half the other way.
                np.testing.assert_allclose(pixels(shown), expected, atol=1)
            tab.press("ArrowRight")

        (tmp_path / "text.png").write_text("no image")
        tab.get("document.querySelector('#file [aria-label=\"Remove this file\"], #file button')?.click()")
        tab.until("document.querySelector('#file input[type=file]') !== null")
        tab.choose_file("#file input", tmp_path / "text.png")
        tab.until("document.body.innerText.includes('This image cannot be used')")
        assert all(url.startswith((address, "data:", "blob:")) for url in tab.asked), tab.asked
    assert "asked for" not in log.read_text()


def test_an_image_that_is_shown_again_is_not_written_again(address: str, log: Path):
    # A file that is written in place while a browser reads it ends early: a torn image, and a traceback in the log.
    numbers = "document.querySelector('#numbers').innerText"
    with browser() as tab:
        tab.open(address, 1200)
        tab.until(f"document.querySelectorAll('#all img').length === {len(FRONT)}")
        first = tab.get(numbers)
        # The browser has read all that it shows, so nobody reads a file that is marked.
        tab.until("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        files = list(log.parent.glob("rdmd-demo-*/**/*.png"))
        assert len(files) > len(FRONT)
        for path in files:
            path.write_bytes(path.read_bytes() + b"mark")
        tab.get("document.querySelector('#lambda input[type=range]').focus()")
        tab.press("ArrowLeft")
        tab.until(f"{numbers} !== '{first}'")
        tab.press("ArrowRight")
        tab.until(f"{numbers} === '{first}'")
    assert all(path.read_bytes().endswith(b"mark") for path in files)


def test_it_fits_a_phone_and_answers_to_the_loopback_alone(address: str):
    with browser() as tab:
        tab.open(address, 390)
        tab.until(f"document.querySelectorAll('#all img').length === {len(FRONT)}")
        assert tab.get("document.documentElement.scrollWidth") <= 390
    elsewhere = urllib.request.Request(address, headers={"Host": "example.com"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(elsewhere, timeout=60)


def test_a_missing_gradio_is_one_sentence(project: Path, tmp_path: Path):
    (tmp_path / "gradio.py").write_text("raise ImportError(name='gradio')", encoding="utf-8")
    said = subprocess.run(
        [sys.executable, "-m", "rdmd.cli", "demo"], cwd=project, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert said.returncode == 2
    assert said.stderr == ("rdmd: `rdmd demo` needs the package gradio, which is missing here; install it with "
                           "`pip install 'rdmd[demo]'`.\n")  # fmt: skip


def test_no_model_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="so the demo has no model; run `make repro`"):
        Front(Layout(tmp_path), CPU)
    assert sample_images(Layout(tmp_path)) == []


def test_generators_of_another_training_than_the_metrics_are_refused(project: Path, tmp_path: Path):
    layout = Layout(tmp_path)
    row = Row(method="rdmd", lam=0.1, run="another", nfe=1, cost=0.1, fid=2.0, on_front=True)
    write_metrics(
        Metrics(
            experiment="digits",
            seed=0,
            features=FeaturesRecord(name="classifier", sha256="c" * 64, dim=16),
            n_source=64,
            n_reference=70,
            rows=[row],
        ),
        layout.metrics,
    )
    layout.generators.parent.mkdir()
    layout.generators.symlink_to(project / "models" / "generators")
    with pytest.raises(UserError, match=r"another generator than .*; repeat `rdmd evaluate`"):
        Front(layout, CPU)


def test_it_begins_at_the_champion(project: Path):
    assert Front(Layout(), CPU).first == 1, "the middle, where nothing is registered"
    registry = Layout().registry
    registry.write_text('{"aliases": {"champion": {"version": 1, "lambda": 2.0}}}', encoding="utf-8")
    front = Front(Layout(), CPU)
    registry.unlink()
    assert front.lambdas == FRONT and front.first == 2
    assert "λ = 2 (champion)" in front.describe(2.0) and "champion" not in front.describe(0.1)


def test_an_image_unlike_the_source_is_called_so(project: Path):
    front = Front(Layout(), CPU)
    assert not any(front.is_unlike(image) for image in sample_images(Layout())), "test images are like training images"
    assert front.is_unlike(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "noise"


def test_a_taken_port_is_said_in_a_sentence(project: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as stopped:
        main(["demo", "--port", str(taken.getsockname()[1])])
    assert stopped.value.code == 2
    assert "give another --port" in capsys.readouterr().err


def test_points_are_refused_in_a_sentence(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["demo"])
    assert stopped.value.code == 2
    assert "the demo shows images" in capsys.readouterr().err
