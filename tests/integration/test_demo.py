"""The demo: a real server over HTTP, and its page in a headless Chromium."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from flows.registered_front import registered_front
from flows.registered_sweep import crown, register_sweep
from flows.tracking import open_record
from rdmd import commands, config
from rdmd.cli import main
from rdmd.demo.app import MAX_BYTES
from rdmd.demo.models import front_on_disk
from rdmd.demo.samples import COUNT, samples
from rdmd.domains.manifest import read_manifest
from rdmd.domains.preprocess import preprocess
from rdmd.errors import UserError
from rdmd.evaluation.metrics_file import write_metrics
from rdmd.evaluation.pareto import mark_front
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, write_model
from rdmd.serving.model import open_folder, translate_pictures
from rdmd.training.spec import lambda_name
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
    uri = f"sqlite:///{root / 'mlflow' / 'store' / 'mlflow.db'}"
    with contextlib.chdir(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        settings, layout = config.load(), Layout()
        for name in ("source", "target"):
            preprocess(settings, name, layout.shards / name)
        rows = []
        for lam, (cost, fid) in SWEEP.items():
            make_generator(settings, layout, lam)
            rows.append(Row(method="rdmd", lam=lam, run=f"run-{lam:g}", nfe=1, cost=cost, cost_se=0.001, fid=fid,
                            fid_ci=(fid - 1, fid + 1)))
        write_metrics(Metrics(
            experiment="digits", seed=0, features=FeaturesRecord(name="classifier", sha256="c" * 64, dim=16),
            n_source=64, n_reference=70, rows=mark_front(rows),
        ), layout.metrics)
        yield root
        mlflow.set_tracking_uri(None)


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
        kind="generator", experiment="digits", network=settings.network, sample_shape=settings.sample_shape, fit="crop",
        sigma_init=1.0, lam=lam, run=f"run-{lam:g}", train_seconds=1.0, trained_on="CPU", sha256=sha256_of(weights),
        source_digest=read_manifest(layout.shards / "source").digest,
        target_digest=read_manifest(layout.shards / "target").digest,
    )
    write_model(layout.generators / lambda_name(lam), card, weights)


def start(project: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """`rdmd demo` in a process of its own, and its address."""
    with log.open("wb") as output:
        server = subprocess.Popen([sys.executable, "-m", "rdmd.cli", "demo", "--device", "cpu"], cwd=project,
                                  env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=output, stderr=output)
    deadline = time.monotonic() + 120
    while "the demo is " not in log.read_text():
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return server, log.read_text().split("the demo is ")[1].split(";")[0]


@pytest.fixture(scope="module")
def address(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a demo of models/generators: nothing is registered."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    server, address = start(project, log)
    assert "taking models/generators, since the registry gives nothing" in log.read_text()
    yield address
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def post(address: str, body: bytes) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}/translate", body), timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def pixels(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has that side in pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_a_picture_is_translated_by_every_generator_of_the_front_as_rdmd_translate_does(project: Path, address: str):
    picture = noise(37, 20)
    status, body = post(address, encoded(picture))
    assert status == 200, body
    assert len(body["translations"]) == len(FRONT)
    seen = pixels(body["source"])
    assert seen.shape == (8, 8, 3)
    for lam, translation in zip(FRONT, body["translations"], strict=True):
        model = open_folder(project / "models" / "generators" / lambda_name(lam), CPU)
        (expected,) = translate_pictures(model, [picture])
        given = pixels(translation["picture"])
        assert given.std() > 10  # not one grey
        # A level: another number of threads may round a half the other way.
        np.testing.assert_allclose(given.astype(int), expected.astype(int), atol=1)
        cost = ((given.astype(float) - seen) * 2 / 255) ** 2
        assert translation["cost"] == pytest.approx(cost.mean(), rel=1e-9)


@pytest.mark.parametrize(("body", "words"), [
    (b"", "nothing was sent; send the bytes of one picture file."),
    (b"hello", "this picture cannot be used (not a picture in a known format); choose another one."),
    (encoded(noise(40, 40))[:900], "this picture cannot be used"),
    (encoded(noise(4, 40)), "this picture cannot be used (40x4 pixels; a side needs at least 8); choose another one."),
    (bomb(5000), "this picture cannot be used (5000x5000 is more than 16777216 pixels); choose another one."),
    # Pillow itself refuses this one.
    (bomb(20_000), "this picture cannot be used (more than 89478485 pixels); choose another one."),
    (bytes(MAX_BYTES + 1), f"this file has {MAX_BYTES + 1} bytes; send one of at most {MAX_BYTES}."),
], ids=["nothing", "no picture", "cut short", "too small", "large", "bomb", "too long"])  # fmt: skip
def test_what_cannot_be_used_gets_400_and_one_sentence(address: str, body: bytes, words: str):
    status, answered = post(address, body)
    assert status == 400
    assert words in answered["message"]
    assert answered["message"].count("\n") == 0 and answered["message"].endswith(".")


def test_the_page_needs_nothing_else_and_answers_to_the_loopback_alone(address: str):
    with urllib.request.urlopen(address, timeout=60) as response:
        page = response.read().decode()
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "http:" not in page and "https:" not in page
    assert "λ = 0.5" not in page
    elsewhere = urllib.request.Request(address, headers={"Host": "example.com"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(elsewhere, timeout=60)


def test_in_a_browser_the_outputs_appear_and_the_arrow_keys_step_through_them(address: str, tmp_path: Path):
    picture = noise(64, 48)
    (tmp_path / "mine.png").write_bytes(encoded(picture))
    outputs = "[...document.querySelectorAll('[data-model] img')]"
    with browser() as tab:
        tab.open(address, 1200)
        # The first sample translates itself.
        tab.until(f"{outputs}.every((image) => image.naturalWidth === 8)")
        assert tab.get(f"{outputs}.length") == len(FRONT)
        sample = tab.get(f"{outputs}.map((image) => image.src)")
        assert len(set(sample)) == len(FRONT), "every generator gives another picture"

        tab.choose_file("#file", tmp_path / "mine.png")
        tab.until("document.getElementById('said').textContent.startsWith('mine.png, translated')")
        shown = tab.get(f"{outputs}.map((image) => image.src)")
        expected = [one["picture"] for one in post(address, encoded(picture))[1]["translations"]]
        assert [src.split(",")[1] for src in shown] == expected
        assert not set(shown) & set(sample)

        tab.get("document.getElementById('lambda').focus()")
        for _ in FRONT:
            tab.press("ArrowLeft")
        for i, lam in enumerate(FRONT):
            assert tab.get("document.getElementById('label').textContent") == f"λ = {lam:g}"
            assert tab.get("document.getElementById('chosen').src") == shown[i]
            cost, fid = SWEEP[lam]
            numbers = tab.get("document.getElementById('numbers').textContent")
            assert f"FID {fid:.1f}" in numbers and f"cost {cost:#.3g}" in numbers
            tab.press("ArrowRight")

        (tmp_path / "text.png").write_text("no picture")
        tab.choose_file("#file", tmp_path / "text.png")
        tab.until("document.getElementById('said').className === 'wrong'")
        assert "not a picture" in tab.get("document.getElementById('said').textContent")
        assert tab.get("document.getElementById('chosen').src") == shown[-1], "the last picture stays"
        # The refused picture is logged as such.
        assert all("400" in complaint for complaint in tab.complaints), tab.complaints
        assert all(url.startswith((address, "data:")) for url in tab.asked), tab.asked


def test_it_fits_a_phone(address: str):
    with browser() as tab:
        for width in (390, 320):
            tab.open(address, width)
            tab.until("document.getElementById('chosen').naturalWidth === 8")
            assert tab.get("document.documentElement.scrollWidth") <= width


def test_samples_are_of_the_test_split_or_drawn(project: Path, tmp_path: Path):
    found, _ = samples(Layout(), 8)
    assert len(found) == COUNT and len({picture.tobytes() for picture in found}) == COUNT
    drawn, what = samples(Layout(tmp_path), 16)
    assert drawn[0].shape == (16, 16, 3) and drawn[0].std() > 10 and "drawn" in what


def test_generators_of_another_training_than_the_metrics_are_refused(project: Path, tmp_path: Path):
    layout = Layout(tmp_path)
    row = Row(method="rdmd", lam=0.1, run="another", nfe=1, cost=0.1, fid=2.0, on_front=True)
    write_metrics(Metrics(
        experiment="digits", seed=0, features=FeaturesRecord(name="classifier", sha256="c" * 64, dim=16),
        n_source=64, n_reference=70, rows=[row],
    ), layout.metrics)
    layout.generators.parent.mkdir()
    layout.generators.symlink_to(project / "models" / "generators")
    with pytest.raises(UserError, match=r"another generator than .*; repeat `rdmd evaluate`"):
        front_on_disk(layout)


def test_the_registered_front_comes_first(project: Path, tmp_path: Path):
    settings = config.load()
    record = open_record(settings.experiment)
    registered = register_sweep(record, settings, Layout())
    crown(record, registered, settings.register_)
    found = commands._front(settings)
    assert found == registered_front(settings)
    assert sorted(one.row.lam for one in found) == FRONT
    assert all(one.model.startswith("models:/rdmd-digits/") for one in found)
    (champion,) = (one for one in found if "champion" in one.aliases)
    assert champion.row.lam == 0.1
    server, address = start(project, tmp_path / "log.txt")
    try:
        assert len(post(address, encoded(noise(8, 8)))[1]["translations"]) == len(FRONT)
    finally:
        server.terminate()
        server.wait(30)


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
    assert "the demo shows pictures" in capsys.readouterr().err
