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
from safetensors.torch import load_file

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.distillation.generator import Generator
from rdmd.errors import Interrupted
from rdmd.files import sha256_of
from rdmd.networks.build import build_denoiser, load_weights
from rdmd.pipeline.jobs import plan_generator
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.training import train_sweep, train_teacher
from rdmd.training.run_config import DistillRun, run_name
from rdmd.training.run_folder import EXIT_STOPPED, WATCH_STDIN, RunFolder
from tests.conftest import params, tiny_points

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
    """Tiny swissroll with shards and a trained teacher, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    with contextlib.chdir(folder):
        settings, layout = config.load(), Layout()
        for name in ("source", "target"):
            preprocess(settings, name, layout.shards / name)
        train_teacher(settings, layout, _Watch(), TrainingProcesses())
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
    train_sweep(settings, layout, _Watch(), TrainingProcesses())
    runs = sorted(layout.runs.glob("*/result.json"))
    before = {file: file.stat().st_mtime_ns for file in runs}
    assert len(runs) == 3  # the teacher and two lambdas
    more = settings.distill.model_copy(update={"lambdas": [0.05, 0.2, 0.5]})
    train_sweep(settings.model_copy(update={"distill": more}), layout, _Watch(), TrainingProcesses())
    after = {file: file.stat().st_mtime_ns for file in layout.runs.glob("*/result.json")}
    assert len(after) == 4
    assert {file: after[file] for file in before} == before
    assert {path.name for path in layout.generators.iterdir()} == {"lambda-0.05", "lambda-0.2", "lambda-0.5"}


def test_a_continued_sweep_goes_down_in_lambda(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    change = {"lambdas": [0.05, 0.5, 0.1], "sweep": config.Continuation(mode="continuation", steps=7)}
    settings = settings.model_copy(update={"distill": settings.distill.model_copy(update=change)})
    train_sweep(settings, layout, _Watch(), TrainingProcesses())
    runs = {
        folder.read_run().lam: folder
        for folder in map(RunFolder, layout.runs.iterdir())
        if isinstance(folder.read_run(), DistillRun)
    }
    assert {lam: folder.result().steps for lam, folder in runs.items()} == {0.5: 40, 0.1: 7, 0.05: 7}
    assert runs[0.5].read_run().start is None
    for lam, above in ((0.1, 0.5), (0.05, 0.1)):
        begun = runs[lam].read_run().start
        assert begun.generator.sha256 == sha256_of(runs[above].weights)
        assert begun.fake.sha256 == sha256_of(runs[above].fake_weights)
    # It begins where the other ended, not at the teacher: few steps leave it near.
    end, continued, teacher = (
        torch.cat([weight.flatten() for _, weight in sorted(load_file(file).items())])
        for file in (runs[0.5].weights, runs[0.1].weights, layout.teacher / "model.safetensors")
    )
    assert (continued - end).norm() < (teacher - end).norm()


def test_refinements_follow_their_own_coarse_run_and_the_last_is_published(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    noise = config.LogNormal(distribution="lognormal", mean=0.0, std=1.2)
    # A pull towards its own start that nothing outweighs: what the first one gives is where the coarse run ended.
    held = config.Refine(steps=5, batch=64, generator_lr=1e-4, proximal=1e6, weighting="unscaled", noise=noise)
    fine = config.Refine(steps=9, batch=128, generator_lr=1e-4, fake_lr=2e-3, weighting="inverse_sigma", noise=noise)
    sweep = config.Continuation(mode="continuation", steps=7)
    change = {"lambdas": [0.05, 0.5], "sweep": sweep, "refine": [held, fine]}
    settings = settings.model_copy(update={"distill": settings.distill.model_copy(update=change)})
    train_sweep(settings, layout, _Watch(), TrainingProcesses())
    runs = {run_name(folder.read_run()): folder for folder in map(RunFolder, layout.runs.iterdir())}
    each = ("-coarse-2", "-coarse-1", "")
    assert set(runs) == {"teacher"} | {f"lambda-{lam}{stage}" for lam in (0.5, 0.05) for stage in each}

    last = runs["lambda-0.05"].read_run()
    assert (last.settings.steps, last.settings.batch, last.settings.weighting) == (9, 128, "inverse_sigma")
    assert (last.settings.fake_lr, last.proximal) == (2e-3, None)
    assert last.start.generator.sha256 == sha256_of(runs["lambda-0.05-coarse-1"].weights)
    middle = runs["lambda-0.05-coarse-1"].read_run()
    assert (middle.settings.fake_lr, middle.proximal) == (settings.distill.fake_lr, 1e6)
    assert middle.start.generator.sha256 == sha256_of(runs["lambda-0.05-coarse-2"].weights)
    # Its curve is of how far it moved from there, which is no transport cost; five steps at this rate move little.
    (held_curve,) = {tuple(point.values) for point in runs["lambda-0.05-coarse-1"].curves()}
    assert "moved" in held_curve
    assert "cost" not in held_curve
    cost = runs["lambda-0.05-coarse-2"].curves()[-1].values["cost"]
    assert runs["lambda-0.05-coarse-1"].curves()[-1].values["moved"] < 0.01 * cost
    # The chain goes through the coarse runs, so that no refinement is inherited.
    coarse = runs["lambda-0.05-coarse-2"].read_run()
    assert coarse.start.generator.sha256 == sha256_of(runs["lambda-0.5-coarse-2"].weights)
    card = read_card(layout.generators / "lambda-0.05")
    assert card.sha256 == sha256_of(runs["lambda-0.05"].weights)
    seconds = {name: folder.result().train_seconds for name, folder in runs.items()}
    led = ("lambda-0.5-coarse-2", "lambda-0.05-coarse-2", "lambda-0.05-coarse-1", "lambda-0.05")
    # Each is rounded to a millisecond.
    assert card.train_seconds == pytest.approx(sum(seconds[name] for name in led), abs=0.01)


def test_a_proximal_run_stays_where_it_began_unless_the_target_pulls_harder(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    noise = config.LogNormal(distribution="lognormal", mean=-0.6, std=1.4)

    def moved(proximal: float | None) -> float:
        """Mean squared distance that a refinement moves the outputs of a generator trained at a lambda of 0.5."""
        stage = config.Refine(
            steps=60, batch=256, generator_lr=1e-3, proximal=proximal, weighting="unscaled", noise=noise, ema=0.9
        )
        change = {"lambdas": [0.5], "refine": [stage]}
        mine = settings.model_copy(update={"distill": settings.distill.model_copy(update=change)})
        train_sweep(mine, layout, _Watch(), TrainingProcesses())
        coarse = RunFolder(layout.runs / read_card(layout.generators / "lambda-0.5").run).read_run().start.generator
        x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(5))
        before, after = (_generator(settings, file) for file in (coarse.path, _weights(layout, "lambda-0.5")))
        with torch.no_grad():
            return (after(x) - before(x)).square().mean().item()

    # At a weight of 100 the anchor outweighs any mismatch; at 0.001 it hardly counts, and the outputs go on to the
    # target, from which lambda 0.5 kept them.
    assert moved(100.0) < 0.1 * moved(0.001)


def _weights(layout: Layout, name: str) -> Path:
    return layout.generators / name / "model.safetensors"


def _generator(settings: config.Settings, weights: Path) -> Generator:
    denoiser = build_denoiser(settings.network, settings.sample_shape)
    load_weights(denoiser, weights)
    return Generator(denoiser, settings.distill.sigma_init)


def test_a_killed_run_resumes_to_the_same_bits(prepared: tuple[config.Settings, Layout]):
    settings, layout = prepared
    run = plan_generator(lengthen(settings, 400), layout, 0.05, None)
    straight, killed = RunFolder.prepare(layout.root / "a", run), RunFolder.prepare(layout.root / "b", run)
    TrainingProcesses().train(straight, ONE_THREAD, lambda points: None)

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
    run = plan_generator(lengthen(settings, 100_000), layout, 0.05, None)
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
    run = plan_generator(lengthen(settings, 100_000), layout, 0.05, None)
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
