"""Trainings that are evaluated on the way: through the stages, after a kill, and in two processes."""

import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.data.sampling import StepRandom
from rdmd.data.view import open_domain
from rdmd.errors import UserError
from rdmd.evaluation.classifier import load_classifier
from rdmd.evaluation.evaluator import evaluate
from rdmd.files import sha256_of
from rdmd.pipeline.features import train_features
from rdmd.pipeline.jobs import plan_teacher
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.model_folder import load_generator
from rdmd.pipeline.training import train_generators, train_teacher, write_curves
from rdmd.training.run_config import DistillRun, FeatureInput
from rdmd.training.run_folder import Point, RunFolder
from tests.conftest import ROOT, params, tiny_digits
from tests.in_process import InThisProcess
from tests.objectives import CPU, Materials

POINTS = FeatureInput(network=config.NoFeatures(network="none"))


@contextlib.contextmanager
def unwatched(*_: object) -> Iterator[Callable[[list[Point]], None]]:
    yield lambda points: None


def evaluated_digits(settings: dict) -> None:
    tiny_digits(settings)
    evaluations = {"evaluate_every": 4, "evaluate_n": 60, "keep": "best"}
    settings["teacher"] |= {"steps": 10, "sample_every": 0} | evaluations
    settings["distill"] |= {"steps": 10, "sample_every": 0, "lambdas": {"from": 0.05, "to": 0.5}} | evaluations
    settings["evaluate"]["features"] |= {"steps": 400}


def test_the_stages_log_evaluations_and_publish_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "params.yaml").write_text(params("digits", evaluated_digits), encoding="utf-8")
    (tmp_path / "rdmd").symlink_to(ROOT / "rdmd")
    monkeypatch.chdir(tmp_path)
    settings, layout, processes = config.load(), Layout(), InThisProcess()
    for name in settings.domains.named:
        preprocess(settings, name, layout.shards / name)
    train_features(settings, layout)
    teacher = train_teacher(settings, layout, unwatched, processes)
    assert [p.step for p in teacher.curves() if "eval_fid" in p.values] == [4, 8, 10]
    (folder,) = train_generators(settings, layout, unwatched, processes)
    evaluated = {point.step: point.values for point in folder.curves() if "eval_fid" in point.values}
    result = folder.result()
    assert result is not None
    assert result.kept_step == min(evaluated, key=lambda step: evaluated[step]["eval_fid"])
    # What the next stages read is what was evaluated, on the features of the stage `features`.
    model = layout.generators / "lambda-0.05-to-0.5"
    assert read_card(model).sha256 == sha256_of(folder.weights) == result.sha256
    _, generator = load_generator(model, CPU)
    x, reference = (
        open_domain(layout.shards / name, "train", CPU).distinct(60, StepRandom(0, 0, 0, CPU), f"evaluated {name}")
        for name in ("source", "target")
    )
    for lam in (0.05, 0.158, 0.5):
        with torch.no_grad():
            y = generator(x, lam)
        scores = evaluate(y, x, reference, load_classifier(layout.features)[0], device=CPU, bootstrap=0)
        # Batches of other sizes round float32 features otherwise.
        assert evaluated[result.kept_step][f"eval_fid_{lam:g}"] == pytest.approx(scores.fid, rel=1e-3)
        assert evaluated[result.kept_step][f"eval_cost_{lam:g}"] == pytest.approx(scores.cost, rel=1e-5)
    write_curves(layout, layout.generators)
    with (layout.curves / "generators.csv").open(encoding="utf-8") as file:
        plotted = [
            (int(row["step"]), float(row["value"])) for row in csv.DictReader(file) if row["metric"] == "eval_fid"
        ]
    assert plotted == [(step, pytest.approx(values["eval_fid"], rel=1e-4)) for step, values in evaluated.items()]

    # A feature network that ranks nothing draws curves, and chooses no weights.
    check = layout.features / "check.json"
    check.write_text(json.dumps(json.loads(check.read_bytes()) | {"refused": "noise lowers it"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"teacher.keep and teacher.patience .* ranks nothing: noise lowers it; set"):
        plan_teacher(settings, layout)
    for_curves = settings.teacher.model_copy(update={"keep": "last"})
    assert plan_teacher(settings.model_copy(update={"teacher": for_curves}), layout).features is not None


def of_points(root: Path, **settings: object) -> DistillRun:
    evaluations = {"evaluate_every": 7, "evaluate_n": 200, "keep": "best", "sample_every": 0}
    return Materials.make("swissroll", root).distill_run({"features": POINTS}, **evaluations | settings)


def test_a_killed_run_keeps_the_same_best(tmp_path: Path):
    run = of_points(tmp_path, steps=300, patience=30, generator_lr=0.02)
    straight, killed = RunFolder.prepare(tmp_path / "a", run), RunFolder.prepare(tmp_path / "b", run)
    result = InThisProcess().train(straight, Slot("cpu", (), 1), lambda points: None)
    command = [sys.executable, "-m", "rdmd.training.run", str(killed.path), "--device", "cpu", "--threads", "1"]
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while not any(point.step >= 60 for point in killed.curves()):
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert killed.result() is None, "it was killed too late to show anything"
    again = InThisProcess().train(killed, Slot("cpu", (), 1), lambda points: None)
    assert killed.curves() == straight.curves()
    assert (again.sha256, again.kept_step, again.steps) == (result.sha256, result.kept_step, result.steps)
    assert sha256_of(killed.last_weights) == sha256_of(straight.last_weights)


@pytest.mark.slow
def test_two_processes_end_together_when_the_patience_is_used_up(tmp_path: Path):
    # The distance grows from the first evaluation on: this learning rate scatters the outputs.
    run = of_points(tmp_path, steps=4000, evaluate_every=5, patience=2, generator_lr=1.0)
    folder = RunFolder.prepare(tmp_path / "runs", run.model_copy(update={"processes": 2}))
    result = TrainingProcesses().train(folder, Slot("cpu", (), 2), lambda points: None)
    evaluated = [point.step for point in folder.curves() if "eval_sw2" in point.values]
    assert result.steps == evaluated[-1] < 4000
    assert evaluated.index(result.kept_step) == len(evaluated) - 3
