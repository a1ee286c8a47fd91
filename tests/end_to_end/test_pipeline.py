"""`dvc repro` in a temporary clone, on real digits, as a user runs it: from nothing to a served model."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from flows.server import STARTING, free_port, prefect_server
from rdmd.cli import main
from rdmd.evaluation.table import read_metrics
from rdmd.files import sha256_of
from rdmd.training.run_folder import RunFolder
from tests.conftest import ROOT, params, tiny_digits

pytestmark = pytest.mark.timeout(1500)


@dataclass(frozen=True)
class Clone:
    """A copy of the project with tiny digits settings, and the environment to run it in."""

    path: Path
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def translate(self, model: str, given: Path, out: Path) -> None:
        """`rdmd translate` with a folder, in this process, since each one imports torch."""
        with contextlib.chdir(self.path), pytest.raises(SystemExit) as ended:
            main(["translate", model, str(given), str(out)])
        assert ended.value.code == 0

    def champion(self) -> str:
        """The folder of the champion."""
        registry = json.loads((self.path / "reports" / "registry.json").read_text(encoding="utf-8"))
        return f"models/generators/lambda-{registry['aliases']['champion']['lambda']:g}"

    def change(self, section: str, **values: object) -> None:
        settings = yaml.safe_load((self.path / "params.yaml").read_text(encoding="utf-8"))
        settings[section] |= values
        (self.path / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    def weights(self) -> dict[str, str]:
        files = sorted(self.path.glob("models/generators/*/model.safetensors"))
        return {file.parent.name: sha256_of(file) for file in files}


def copy_work_tree(to: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    # Another experiment is run here than the one whose results are committed.
    (to / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(to / "reports", ignore_errors=True)
    (to / "params.yaml").write_text(params("digits", tiny_digits), encoding="utf-8")
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A clone"]):
        subprocess.run([*git, *command], cwd=to, check=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone in which `dvc repro` has run once."""
    path = tmp_path_factory.mktemp("clone")
    copy_work_tree(path)
    dropped = {"MLFLOW_TRACKING_URI", "PREFECT_HOME", "DVC_ROOT", "DVC_STAGE"}
    with prefect_server() as server:
        environment = {key: value for key, value in server.environment.items() if key not in dropped}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(path),
            STARTING: "1",
        }
        made = Clone(path, environment)
        first = made.run("dvc", "repro")
        assert first.returncode == 0, first.stdout[-3000:]
        yield made


def test_it_ends_with_a_table_a_report_and_a_champion(clone: Clone):
    said = clone.run("rdmd", "summary")
    assert said.returncode == 0, said.stdout
    metrics = read_metrics(clone.path / "reports" / "metrics.json")
    assert {row.lam for row in metrics.rows if row.method == "rdmd"} == {0.05, 0.5}
    assert "models:/rdmd-digits@champion" in said.stdout
    assert "reports/index.html" in said.stdout
    for row in metrics.rows:
        if row.fid is not None:
            assert f"{row.fid:.3g}" in said.stdout
    report = (clone.path / "reports" / "index.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in report
    with Image.open(clone.path / "reports" / "samples.png") as image:
        assert np.asarray(image).std() > 10  # not a blank page


def test_a_second_run_does_nothing(clone: Clone):
    said = clone.run("dvc", "repro")
    assert said.returncode == 0
    assert "Running stage" not in said.stdout
    assert "Data and pipelines are up to date." in said.stdout


def test_translate_gives_the_same_by_registry_by_folder_and_by_run(clone: Clone, tmp_path: Path):
    registry = json.loads((clone.path / "reports" / "registry.json").read_text(encoding="utf-8"))
    given = tmp_path / "in"
    (given / "nested").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (37, 20, 3), dtype=np.uint8)).save(given / "a.png")
    Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(given / "nested" / "b.bmp")
    folder = clone.champion()
    run = json.loads((clone.path / folder / "model.json").read_text(encoding="utf-8"))["run"]
    said = clone.run("rdmd", "translate", registry["champion"], str(given), str(tmp_path / "out0"))
    assert said.returncode == 0, said.stdout
    clone.translate(folder, given, tmp_path / "out1")
    clone.translate(f"runs/{run}", given, tmp_path / "out2")
    images = []
    for i in range(3):
        out = tmp_path / f"out{i}"
        assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == ["a.png", "nested/b.png"]
        images.append([np.asarray(Image.open(out / name)) for name in ("a.png", "nested/b.png")])
    assert images[0][0].shape == (37, 20, 3)
    for others in images[1:]:
        for one, other in zip(images[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_served_champion_answers_over_http_as_translate_does(clone: Clone, tmp_path: Path):
    port, log = free_port(), tmp_path / "requests.jsonl"
    server = subprocess.Popen(
        ["rdmd", "serve", "--port", str(port), "--log", str(log)],
        cwd=clone.path,
        env=clone.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/ping"), 120, "the served model does not answer")
        images = np.random.default_rng(1).integers(0, 256, (3, 11, 9, 3), dtype=np.uint8)
        got = post(f"{url}/invocations", {"inputs": images.tolist()})
        served = np.asarray(got["predictions"], dtype=np.uint8)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    # Noise is unlike the digits.
    monitored = clone.run("rdmd", "monitor", str(log))
    assert monitored.returncode == 1, monitored.stdout
    assert "100.0% of the images are unlike the training source" in monitored.stdout
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    # The test before translates by the registry.
    clone.translate(clone.champion(), tmp_path, tmp_path / "out")
    for i in range(len(images)):
        np.testing.assert_array_equal(served[i], np.asarray(Image.open(tmp_path / "out" / f"{i}.png")))


def test_kill_9_in_the_middle_of_a_distillation_loses_nothing(clone: Clone):
    before = clone.weights()
    for folder in sorted(clone.path.glob("runs/*")):
        if '"distill"' in (folder / "run.json").read_text(encoding="utf-8"):
            shutil.rmtree(folder)
    # Or the runs would come back from it.
    shutil.rmtree(clone.path / ".dvc" / "cache")
    # A cadence makes the stage run again and changes nothing that is learned.
    clone.change("distill", checkpoint_every=4)
    process = subprocess.Popen(
        ["dvc", "repro", "distill"],
        cwd=clone.path,
        env=clone.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: any(progress(clone)), 240, "no distillation got as far as a checkpoint")
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        one.kill()
    psutil.wait_procs(tree, timeout=30)
    process.wait()
    assert not all((folder.path / "result.json").exists() for folder in distillations(clone))
    # What a kill leaves in the instant in which DVC rewrites this file.
    (clone.path / ".dvc" / "tmp" / "rwlock").write_text("", encoding="utf-8")

    again = clone.run("python", "-m", "flows.server", "dvc", "repro", "distill")
    assert again.returncode == 0, again.stdout[-3000:]
    assert clone.weights() == before


def test_one_more_lambda_trains_one_more_generator(clone: Clone):
    before = {folder.path: folder.result_file.stat().st_mtime_ns for folder in distillations(clone)}
    clone.change("distill", lambdas=[0.05, 0.2, 0.5])
    said = clone.run("dvc", "repro", "distill")
    assert said.returncode == 0, said.stdout[-3000:]
    after = {folder.path: folder.result_file.stat().st_mtime_ns for folder in distillations(clone)}
    assert len(after) == len(before) + 1
    assert {path: after[path] for path in before} == before
    assert set(clone.weights()) == {"lambda-0.05", "lambda-0.2", "lambda-0.5"}
    assert "Running stage 'teacher'" not in said.stdout


def distillations(clone: Clone) -> list[RunFolder]:
    files = sorted(clone.path.glob("runs/*/run.json"))
    return [RunFolder(file.parent) for file in files if '"distill"' in file.read_text(encoding="utf-8")]


def progress(clone: Clone) -> list[bool]:
    """Which distillations have a checkpoint and are not finished."""
    return [folder.checkpoint.exists() and not folder.result_file.exists() for folder in distillations(clone)]


def wait_for(condition, seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
