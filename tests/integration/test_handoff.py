"""A registered model on a machine without this repository: loaded, served over HTTP, exported to ONNX."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from flows.registry.versions import Candidate, ensure_model, register_generator
from flows.server import free_port
from flows.tracking.runs import open_record
from rdmd import cli, config
from rdmd.data.likeness import FEWEST, SourceStatistics
from rdmd.evaluation.row import FeaturesRecord, Metrics, PairedScores, Row
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.model_card import ModelCard, write_model
from rdmd.pipeline.translate import translate_path
from rdmd.serving.images import translate_images
from rdmd.serving.model import open_folder, translate_points
from tests.conftest import ROOT, fresh_store

CPU = torch.device("cpu")
NETWORKS = {
    "images": (
        config.ImageNetwork(kind="ddpmpp", model_channels=8, channel_mult=[1], num_blocks=1, attn_resolutions=[]),
        (3, 8, 8),
    ),
    "points": (config.PointNetwork(kind="mlp", width=16, depth=2), (2,)),
}
# Takes this repository away from a child: its folder, and the finder of the editable installation.
NO_REPOSITORY = """
import sys
sys.path[:] = [entry for entry in sys.path if entry not in {root!r}]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in finder.__module__]
"""
LOAD = """
import importlib.util, sys
assert importlib.util.find_spec("rdmd") is None, "the repository is still there"
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
points = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(points))
np.testing.assert_array_equal(model.predict(points.tolist()), model.predict(points))
try:
    model.predict("points")
except mlflow.MlflowException as refused:
    print("refused:", refused)
files = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "rdmd"}
print("outside:", [file for file in files.values() if "/code/rdmd/" not in file])
print("modules:", *sorted(files))
"""


@dataclass(frozen=True)
class Handed:
    """Models of random weights, registered in a store of their own, and how a child without the repository is run."""

    folder: Path
    record: object
    environment: dict[str, str]

    def candidate(self, name: str) -> Candidate:
        card = ModelCard.model_validate_json((self.folder / name / "model.json").read_text(encoding="utf-8"))
        paired = PairedScores(
            psnr=21.5,
            psnr_se=None,
            feature_distance=9.0,
            feature_distance_se=0.5,
            retrieval=0.25,
            colour_error={"hair": 0.125},
            colour_error_se={},
            agreement={"beard": 0.75},
        )
        scores = {"fid": 12.5, "fid_ci": (11.0, 14.0), "cost": 0.25, "paired": paired}
        row = Row(method="rdmd", lam=0.1, nfe=1, run="abc", on_front=True, **scores)
        metrics = Metrics(
            experiment="tiny",
            seed=7,
            features=FeaturesRecord(name="classifier", sha256="c" * 64, dim=64),
            n_source=128,
            n_reference=256,
            rows=[row],
        )
        samples = self.folder / "samples.png"
        Image.new("RGB", (20, 10), "red").save(samples)
        return Candidate(self.folder / name, card, row, metrics, samples)


def make_generator(folder: Path, name: str) -> None:
    network, shape = NETWORKS[name]
    torch.manual_seed(0)
    denoiser = build_denoiser(network, shape)
    with torch.no_grad():
        for weight in denoiser.parameters():
            # As built, what ends the network is almost zero, and every output is the same.
            weight.add_(torch.randn_like(weight), alpha=0.1)
    weights = folder / f"{name}.safetensors"
    save_weights(denoiser, weights)
    card = ModelCard(
        kind="generator",
        experiment="tiny",
        network=network,
        sample_shape=shape,
        fit="pad",
        sigma_init=1.0,
        lam=0.1,
        run="abc",
        train_seconds=1.0,
        trained_on="cpu",
        sha256=sha256_of(weights),
        source_digest="a" * 64,
        target_digest="b" * 64,
        source=SourceStatistics.of(np.stack([grey(i) for i in range(FEWEST)])) if name == "images" else None,
    )
    write_model(folder / name, card, weights)


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handed]:
    folder = tmp_path_factory.mktemp("handoff")
    (folder / "site").mkdir()
    root = [str(Path(__file__).parents[2])]
    (folder / "site" / "sitecustomize.py").write_text(NO_REPOSITORY.format(root=root), encoding="utf-8")
    uri = fresh_store(folder / "store" / "mlflow.db")
    environment = os.environ | {
        "PYTHONPATH": str(folder / "site"),
        "MLFLOW_TRACKING_URI": uri,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        made = Handed(folder, open_record("tiny"), environment)
        for name in NETWORKS:
            make_generator(folder, name)
            ensure_model(made.record, f"rdmd-{name}", "A test.")
            version = register_generator(made.record, f"rdmd-{name}", made.candidate(name))
            made.record.client.set_registered_model_alias(f"rdmd-{name}", "champion", version.version)
        yield made
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def served(handed: Handed) -> Iterator[str]:
    """The address at which a server without the repository answers for the images' model."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/rdmd-images@champion", "--env-manager", "local", "--port"]
    with (handed.folder / "server.txt").open("wb") as log:
        server = subprocess.Popen(
            [*command, str(port)],
            cwd=handed.folder,
            env=handed.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while post(f"http://127.0.0.1:{port}/invocations", b"")[0] is None:
            assert server.poll() is None and time.monotonic() < deadline, (handed.folder / "server.txt").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def post(url: str, body: bytes) -> tuple[int | None, dict]:
    """The status and the answer; no status where nobody answers."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError:
        return None, {}


def grey(seed: int) -> np.ndarray:
    """An image of one random shade: uint8 (8, 8, 3), the training source."""
    return np.full((8, 8, 3), np.random.default_rng(seed).integers(60, 200), dtype=np.uint8)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_it_loads_without_the_repository_and_gives_the_same_numbers(handed: Handed, tmp_path: Path):
    points = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.save(tmp_path / "in.npy", points)
    arguments = ["models:/rdmd-points@champion", str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    said = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        cwd=tmp_path,
        env=handed.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    expected = translate_points(open_folder(handed.folder / "points", CPU), points)
    # The same code on the same machine; a different number of threads may add up in another order.
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    outcome = dict(line.split(": ", 1) for line in said.stdout.splitlines() if ": " in line)
    assert outcome["refused"] == "`inputs` is not a list; send a list of samples."
    assert outcome["outside"] == "[]"
    assert "rdmd.networks.build" in outcome["modules"].split()
    assert not {"rdmd.training", "rdmd.evaluation", "rdmd.baselines"} & set(outcome["modules"].split())


def test_a_model_is_code_weights_and_a_page_about_it(handed: Handed, tmp_path: Path):
    fetched = Path(mlflow.artifacts.download_artifacts("models:/rdmd-images@champion", dst_path=str(tmp_path)))
    page = (fetched / "README.md").read_text(encoding="utf-8")
    assert "128 translated samples of the source's test split against 256" in page
    assert "seed 7" in page
    assert "| `fid_ci` | 11 to 14 |" in page
    assert "| `paired.psnr` | 21.5 |" in page
    assert "| `paired.agreement.beard` | 0.75 |" in page
    assert "](samples.png)" in page and Image.open(fetched / "samples.png").size == (20, 10)
    assert not list(fetched.rglob("*.pkl"))
    pinned = (fetched / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line.split("==")[0] for line in pinned} >= {"torch", "mlflow-skinny", "pillow", "safetensors"}
    assert all("==" in line and "+" not in line for line in pinned)
    assert "mlflow" not in {line.split("==")[0] for line in pinned}
    assert not {"training", "evaluation", "baselines"} & {path.name for path in (fetched / "code" / "rdmd").iterdir()}
    assert mlflow.models.get_model_info("models:/rdmd-images@champion").signature is not None


def test_registering_again_adds_nothing(handed: Handed):
    before = len(MlflowClient().search_model_versions())
    again = register_generator(handed.record, "rdmd-points", handed.candidate("points"))
    assert len(MlflowClient().search_model_versions()) == before
    assert int(again.version) == 1


def test_png_files_over_http_give_what_rdmd_translate_gives(served: str, handed: Handed, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for i, (height, width) in enumerate([(8, 8), (37, 20), (300, 9)]):
        Image.fromarray(noise(i, height, width)).save(tmp_path / "in" / f"{i}.png")
    texts = [base64.b64encode(path.read_bytes()).decode() for path in sorted((tmp_path / "in").iterdir())]
    status, body = post(served, json.dumps({"inputs": texts}).encode())
    assert status == 200, body
    translate_path(open_folder(handed.folder / "images", CPU), tmp_path / "in", tmp_path / "out")
    for i, text in enumerate(body["predictions"]):
        answered = Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"])
        # A level: another number of threads may round a half the other way.
        np.testing.assert_allclose(np.asarray(answered), np.asarray(Image.open(tmp_path / "out" / f"{i}.png")), atol=1)
        assert answered.size == [(8, 8), (20, 37), (9, 300)][i]


def test_arrays_over_http_come_back_as_arrays(served: str, handed: Handed):
    images = [noise(0, 11, 9), noise(1, 11, 9)]
    status, body = post(served, json.dumps({"inputs": np.stack(images).tolist()}).encode())
    assert status == 200, body
    expected = np.stack(list(translate_images(open_folder(handed.folder / "images", CPU), images)))
    assert expected.std() > 10  # not one grey
    np.testing.assert_allclose(np.asarray(body["predictions"]), expected, atol=1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"inputs": ["no image"]}', "image 0 of `inputs` is not base64; send the bytes of a PNG file in base64."),
        (
            '{"inputs": ["aGVsbG8="]}',
            "image 0 of `inputs` cannot be used (not an image in a known format); send another one.",
        ),
        (
            '{"inputs": [[[0.5]]]}',
            "image 0 of `inputs` is neither base64 text nor an array (H, W, 3) of whole numbers 0 to 255; "
            "send a list of either.",
        ),
        ('{"inputs": "aGVsbG8="}', "`inputs` is not a list; send a list of samples."),
        ('{"inputs": []}', "`inputs` holds 0 samples; send 1 to 256 in one request."),
    ],
)
def test_a_wrong_request_gets_400_and_one_sentence(served: str, body: str, words: str):
    status, answered = post(served, body.encode())
    assert status == 400
    assert answered["message"] == words


@pytest.mark.parametrize("body", ["", "text", "[1]", "{}", '{"instances": [1]}'])
def test_what_is_no_request_gets_400(served: str, body: str):
    assert post(served, body.encode())[0] == 400


def test_rdmd_serve_measures_requests_and_its_end_is_the_end_of_its_server(handed: Handed, tmp_path: Path):
    port = free_port()
    command = [sys.executable, "-m", "rdmd.cli", "serve", "--model", "models:/rdmd-images@champion", "--port"]
    with (tmp_path / "log.txt").open("wb") as log:
        parent = subprocess.Popen([*command, str(port)], cwd=ROOT, stdout=log, stderr=log)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while post(f"{url}/invocations", b"")[0] is None:
            assert parent.poll() is None and time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
            time.sleep(0.2)
        for images, unlike in (([grey(1)], None), ([grey(2), noise(0, 8, 8)], "1 of 2")):
            body = json.dumps({"inputs": [image.tolist() for image in images]}).encode()
            request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                assert len(json.load(response)["predictions"]) == len(images)
                assert response.headers["RDMD-Unlike-Source"] == unlike
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
            metrics = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if line[0] != "#")
        assert metrics["rdmd_inputs_total"] == "3.0"
        assert metrics["rdmd_inputs_unlike_source_total"] == "1.0"
        assert metrics["rdmd_input_distance_count"] == metrics["rdmd_cost_count"] == "3.0"
        assert metrics['rdmd_requests_total{status="200"}'] == "2.0"
        assert "1 of 2 images are unlike" in (tmp_path / "log.txt").read_text()
        assert (
            (tmp_path / "log.txt")
            .read_text()
            .startswith(
                "models:/rdmd-images@champion is models:/rdmd-images/1 now; if the alias moves, restart this server\n"
                "serving models:/rdmd-images/1 at http"
            )
        )
        # To that process alone, as when a terminal closes.
        parent.send_signal(signal.SIGHUP)
        assert parent.wait(20) == 128 + signal.SIGHUP
        socket.create_server(("127.0.0.1", port)).close()
    finally:
        parent.kill()


def test_rdmd_translate_counts_the_images_unlike_the_source(
    handed: Handed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    for name, image in {"like": grey(1), "unlike": noise(0, 8, 8)}.items():
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    with pytest.raises(SystemExit) as ended:
        cli.main(["translate", str(handed.folder / "images"), str(tmp_path / "in"), str(tmp_path / "out")])
    assert ended.value.code == 0
    assert capsys.readouterr().err.startswith("1 of 2 are unlike the images that this model was trained on")


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_gives_what_torch_gives_at_any_batch_size(handed: Handed, tmp_path: Path, name: str):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from rdmd.serving.export import export_onnx

    model = open_folder(handed.folder / name, CPU)
    export_onnx(model, tmp_path / "g.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 5):
        if name == "points":
            source = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)
            expected, tolerance = translate_points(model, source), 1e-4  # float32 sums in another order
        else:
            source = np.stack([noise(i, 8, 8) for i in range(n)])
            # A half may be rounded the other way.
            expected, tolerance = np.stack(list(translate_images(model, source))), 1
        (given,) = session.run(None, {"source": source})
        assert given.dtype == expected.dtype
        np.testing.assert_allclose(given.astype(float), expected.astype(float), atol=tolerance)
