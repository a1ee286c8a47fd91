"""Training runs as processes: reused, resumed bit for bit, stopped with their launcher."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.errors import Interrupted
from rdmd.files import sha256_of
from rdmd.pipeline.jobs import plan_generators
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.training import train_generators, train_teacher
from rdmd.pipeline.translators import generators
from rdmd.training.run_folder import EXIT_STOPPED, WATCH_STDIN, Result, RunFolder
from tests.conftest import params, tiny_points
from tests.in_process import InThisProcess

ONE_THREAD = Slot("cpu", (), 1)


class _Watch:
    """Counts the runs that it is asked to watch, and keeps their points."""

    def __init__(self) -> None:
        self.points: dict[str, list[int]] = {}

    def __call__(self, folder: RunFolder, run: object) -> "_Watch":
        self.current = self.points.setdefault(folder.fingerprint, [])
        return self

    def __enter__(self):
        seen = self.current
        return lambda points: seen.extend(point.step for point in points)

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny swissroll with shards, a teacher and two generators, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    with contextlib.chdir(folder):
        settings, layout = config.load(), Layout()
        for name in ("source", "target"):
            preprocess(settings, name, layout.shards / name)
        train_teacher(settings, layout, _Watch(), InThisProcess())
        train_generators(settings, layout, _Watch(), InThisProcess())
    return folder


@pytest.fixture
def prepared(trained: Path, points_project: Path) -> tuple[config.Settings, Layout]:
    """A copy of it as the current folder."""
    shutil.copytree(trained, points_project, dirs_exist_ok=True)
    return config.load(), Layout()


def lengthen(settings: config.Settings, steps: int) -> config.Settings:
    distill = settings.distill.model_copy(update={"steps": steps, "lambdas": [0.05], "log_every": 1})
    return settings.model_copy(update={"distill": distill})


def start(folder: RunFolder, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rdmd.training.run", str(folder.path), "--device", "cpu", "--threads", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


def wait_for_step(folder: RunFolder, step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(point.step >= step for point in folder.curves()):
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.02)


def test_one_more_lambda_trains_one_more_generator(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    runs = sorted(layout.runs.glob("*/result.json"))
    before = {file: file.stat().st_mtime_ns for file in runs}
    assert len(runs) == 3  # the teacher and two lambdas
    more = settings.distill.model_copy(update={"lambdas": [0.05, 0.2, 0.5]})
    train_generators(settings.model_copy(update={"distill": more}), layout, _Watch(), InThisProcess())
    after = {file: file.stat().st_mtime_ns for file in layout.runs.glob("*/result.json")}
    assert len(after) == 4
    assert {file: after[file] for file in before} == before
    assert {path.name for path in layout.generators.iterdir()} == {"lambda-0.05", "lambda-0.2", "lambda-0.5"}


def test_a_clone_that_pulled_the_models_trains_none_of_them_again(
    prepared: tuple[config.Settings, Layout],
):
    settings, layout = prepared
    folders = train_generators(settings, layout, _Watch(), InThisProcess())
    made = {folder.path: (folder.result(), folder.curves()) for folder in folders}
    # As `dvc repro` and `dvc push`, `git clone` and `dvc pull` leave it; DVC removes outputs when their stage begins.
    Path("dvc.yaml").write_text("stages: {distill: {cmd: 'true', outs: [models/generators: {persist: true}]}}")
    for command in ("init --no-scm -q", "repro -q"):
        subprocess.run([sys.executable, "-m", "dvc", *command.split()], check=True)
    shutil.rmtree(layout.runs)
    shutil.rmtree(layout.generators)

    class NoTraining(TrainingProcesses):
        def train(self, *arguments: object) -> Result:
            raise AssertionError("it trained again")

    train_generators(settings, layout, _Watch(), NoTraining())
    assert {folder.path: (folder.result(), folder.curves()) for folder in folders} == made
    # What is not whole in the cache is left: a clone that pulled nothing, or a part.
    for weights in Path(".dvc/cache/files/md5").rglob("*"):
        if weights.is_file() and sha256_of(weights) in {result.sha256 for result, _ in made.values() if result}:
            weights.unlink()
    shutil.rmtree(layout.runs)
    with pytest.raises(AssertionError, match="trained again"):
        train_generators(settings, layout, _Watch(), NoTraining())


def test_one_generator_for_a_range_is_trained_once_whatever_is_evaluated(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    lambdas = config.LambdaRange.model_validate({"from": 0.05, "to": 0.5})
    settings = settings.model_copy(update={"distill": settings.distill.model_copy(update={"lambdas": lambdas})})
    (folder,) = train_generators(settings, layout, _Watch(), InThisProcess())
    card = read_card(layout.generators / "lambda-0.05-to-0.5")
    assert (card.run, card.lambdas) == (folder.fingerprint, lambdas)
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(5))
    costs = []
    for wanted in ([0.05, 0.5], [0.05, 0.2, 0.5]):
        changed = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"lambdas": wanted})})
        (again,) = train_generators(changed, layout, _Watch(), TrainingProcesses())
        assert again.fingerprint == folder.fingerprint
        found = list(generators(changed, layout, torch.device("cpu")))
        assert [one.lam for one in found] == wanted
        moved = [(one.map(x, torch.Generator()) - x).square().mean().item() for one in found]
        # Few steps suffice for the order: a larger lambda keeps outputs nearer to the sources.
        assert moved == sorted(moved, reverse=True)
        costs.append(dict(zip(wanted, moved, strict=True)))
    assert costs[0].items() <= costs[1].items()


def test_a_killed_run_resumes_to_the_same_bits(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    run = plan_generators(lengthen(settings, 400), layout)[0]
    straight, killed = RunFolder.prepare(layout.root / "a", run), RunFolder.prepare(layout.root / "b", run)
    InThisProcess().train(straight, ONE_THREAD, lambda points: None)

    child = start(killed)
    wait_for_step(killed, 25)
    child.kill()
    child.wait()
    assert killed.result() is None
    steps_logged = killed.curves()[-1].step
    assert killed.checkpoint.exists()
    TrainingProcesses().train(killed, ONE_THREAD, lambda points: None)

    assert steps_logged < 400, "it was killed too late to show anything"
    assert sha256_of(killed.weights) == sha256_of(straight.weights)
    assert killed.curves() == straight.curves()


@pytest.mark.parametrize("ending", ["signal", "launcher gone"])
def test_a_stopped_run_leaves_a_checkpoint_and_says_so(prepared: tuple[config.Settings, Layout], ending: str):
    settings, layout = prepared
    run = plan_generators(lengthen(settings, 100_000), layout)[0]
    folder = RunFolder.prepare(layout.runs, run)
    child = start(folder, **{WATCH_STDIN: "1"})
    wait_for_step(folder, 12)
    if ending == "signal":
        child.send_signal(signal.SIGINT)
    else:
        child.stdin.close()
    assert child.wait(30) == EXIT_STOPPED
    said = child.stderr.read().decode()
    assert "the same command goes on" in said
    assert "Traceback" not in said
    # It stopped between two regular checkpoints, so the one that it left is its own.
    assert folder.curves()[-1].step % run.settings.checkpoint_every or folder.checkpoint.exists()


def test_stopping_all_ends_the_processes_and_starts_no_more(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    run = plan_generators(lengthen(settings, 100_000), layout)[0]
    folder, processes = RunFolder.prepare(layout.runs, run), TrainingProcesses()
    ended: list[BaseException] = []

    def train() -> None:
        try:
            processes.train(folder, ONE_THREAD, lambda points: None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    wait_for_step(folder, 5)
    processes.stop_all()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(ended[0], Interrupted)
    assert folder.checkpoint.exists()
    with folder.locked():  # no process holds it any more
        pass
    with pytest.raises(Interrupted):
        processes.train(folder, ONE_THREAD, lambda points: None)
