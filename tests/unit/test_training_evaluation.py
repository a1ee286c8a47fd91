"""Evaluations during a training: what they measure, which weights are the best, and when they end the run."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.data.view import open_domain
from rdmd.evaluation.evaluator import evaluate
from rdmd.files import sha256_of
from rdmd.networks.efficientnet_lite import load_efficientnet_lite0
from rdmd.progress import run_bar
from rdmd.training.checkpoint import Best, Progress, best_of
from rdmd.training.evaluation import combined, evaluations_of
from rdmd.training.loop import Evaluations, Measured, StopRequest, train
from rdmd.training.run import run_training
from rdmd.training.run_config import DistillRun, FeatureInput, TeacherRun, TrainingRun, fingerprint
from rdmd.training.run_folder import Point, RunFolder
from tests.objectives import CPU, Materials, accelerator

POINTS = FeatureInput(network=config.NoFeatures(network="none"))
# The smallest input side, for speed.
IMAGES = FeatureInput(network=config.EfficientNetLite0Features(network="efficientnet_lite0", side=32))
RANGE = config.LambdaRange.model_validate({"from": 0.05, "to": 0.5})


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials.make("swissroll", tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials.make("digits", tmp_path_factory.mktemp("digits"))


def bests(distances: list[float]) -> list[Best]:
    """The best after each of the evaluations at steps 10, 20, ..., whose weights are the step."""
    found: list[Best] = []
    for step, distance in enumerate(distances, 1):
        weights = {"w": torch.tensor(10.0 * step)}
        found.append(best_of(found[-1] if found else None, 10 * step, distance, weights))
    return found


def test_the_best_is_the_least_distance_and_at_a_tie_the_earlier():
    last = bests([5.0, 3.0, 4.0, 3.0, 6.0])[-1]
    assert (last.step, last.distance, last.since) == (20, 3.0, 3)
    assert last.weights["w"] == 20.0


def test_the_best_weights_do_not_follow_the_training():
    weight = torch.tensor(1.0)
    best = best_of(None, 1, 2.0, {"w": weight})
    weight += 1
    assert best.weights["w"] == 1.0


def test_patience_counts_evaluations_without_a_new_best():
    distances = [5.0, 6.0, 4.0, 4.0, 7.0, 3.0]
    ended = {patience: [Evaluations(1, patience, NotImplemented).end(best) for best in bests(distances)]
             for patience in (1, 2, None)}  # fmt: skip
    assert ended == {
        1: [False, True, False, True, True, False],
        2: [False, False, False, False, True, False],
        None: [False] * 6,
    }
    assert not Evaluations(1, 1, NotImplemented).end(None)


def test_a_range_is_compared_by_the_geometric_mean():
    """Halving the distance at one lambda makes up for doubling it at another, whatever their sizes."""
    measured = combined({"fid": [2.0, 8.0, 100.0], "cost": [0.3, 0.2, 0.1]}, (0.05, 0.158, 0.5))
    assert measured.distance == pytest.approx(1600 ** (1 / 3), rel=1e-12)
    assert combined({"fid": [1.0, 8.0, 200.0]}, (0.05, 0.158, 0.5)).distance == pytest.approx(measured.distance)
    assert measured.values == {
        "eval_fid": measured.distance, "eval_cost": pytest.approx(0.2),
        "eval_fid_0.05": 2.0, "eval_fid_0.158": 8.0, "eval_fid_0.5": 100.0,
        "eval_cost_0.05": 0.3, "eval_cost_0.158": 0.2, "eval_cost_0.5": 0.1,
    }  # fmt: skip
    assert combined({"fid": [0.0]}, (None,)).distance < 1e-11


def drawn(materials: Materials, domain: str, n: int) -> Tensor:
    """The samples of `domain` that evaluations use, in the networks' range."""
    view = open_domain(materials.root / domain, "train", CPU)
    return view.distinct(n, StepRandom(0, 0, 0, CPU), f"evaluated {domain}")


def test_images_are_measured_as_the_evaluation_does(digits: Materials):
    run = digits.distill_run({"lam": RANGE, "features": IMAGES}, evaluate_every=1, evaluate_n=60)
    objective = digits.distill({"lam": RANGE, "features": IMAGES}, evaluate_every=1, evaluate_n=60)
    measured = evaluations_of(run, objective, open_domain).measure()
    x, reference = drawn(digits, "source", 60), drawn(digits, "target", 60)
    assert len(x.flatten(1).unique(dim=0)) == 60
    for lam in (0.05, RANGE.middle, 0.5):
        y = objective.ema.averaged(x, lam)
        scores = evaluate(y, x, reference, load_efficientnet_lite0(CPU, 32), device=CPU, bootstrap=0)
        # Batches of other sizes round float32 features otherwise.
        assert measured.values[f"eval_fid_{lam:g}"] == pytest.approx(scores.fid, rel=1e-3)
        assert measured.values[f"eval_cost_{lam:g}"] == pytest.approx(scores.cost, rel=1e-6)


def test_points_are_measured_as_the_evaluation_does(points: Materials):
    run = points.distill_run({"features": POINTS}, evaluate_every=1, evaluate_n=300)
    objective = points.distill({"features": POINTS}, evaluate_every=1, evaluate_n=300)
    measured = evaluations_of(run, objective, open_domain).measure()
    x = drawn(points, "source", 300)
    scores = evaluate(objective.ema.averaged(x), x, drawn(points, "target", 300), bootstrap=0, projections=256)
    assert set(measured.values) == {"eval_sw2", "eval_cost"}
    # The directions have the same seed; costs are summed in float64 there.
    assert measured.values["eval_sw2"] == pytest.approx(scores.sw2, rel=1e-6)
    assert measured.values["eval_cost"] == pytest.approx(scores.cost, rel=1e-5)


def trained(run: TrainingRun, root: Path) -> RunFolder:
    accelerator()  # an accelerator of another test may have another precision
    folder = RunFolder.prepare(root, run)
    assert run_training(run, folder, "cpu")
    return folder


@pytest.mark.parametrize("kind", ["teacher", "distill"])
def test_evaluations_change_no_weight(points: Materials, tmp_path: Path, kind: str):
    make = points.teacher_run if kind == "teacher" else points.distill_run
    alone = trained(make(steps=12, log_every=4), tmp_path)
    watched = trained(make({"features": POINTS}, steps=12, log_every=4, evaluate_every=5, evaluate_n=50), tmp_path)
    assert sha256_of(watched.weights) == sha256_of(alone.weights)
    assert [point.step for point in watched.curves()] == [4, 5, 8, 10, 12]
    assert [point.step for point in watched.curves() if "eval_sw2" in point.values] == [5, 10, 12]
    assert not alone.best_weights.exists() and alone.result().kept_step is None


class Scripted:
    """Evaluations whose distances are given."""

    def __init__(self, *distances: float) -> None:
        self.left = list(distances)

    def __call__(self, run: TeacherRun | DistillRun, *_: object) -> Evaluations:
        settings = run.settings

        def measure() -> Measured:
            distance = self.left.pop(0)
            return Measured({"eval_sw2": distance}, distance)

        return Evaluations(settings.evaluate_every, settings.patience, measure)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_weights_are_kept_beside_the_last(
    points: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
):
    plain = {steps: sha256_of(trained(points.distill_run(steps=steps), tmp_path).weights) for steps in (6, 9)}
    monkeypatch.setattr("rdmd.training.run.evaluations_of", Scripted(3.0, 1.0, 2.0))
    run = points.distill_run({"features": POINTS}, steps=9, evaluate_every=3, keep=keep)
    folder = trained(run, tmp_path)
    # The shipped learning rates do not depend on the number of steps, so step 6 has the weights of a run of 6 steps.
    others = (folder.weights, folder.last_weights) if keep == "best" else (folder.best_weights, folder.weights)
    assert [sha256_of(file) for file in others] == [plain[6], plain[9]]
    assert folder.result().sha256 == sha256_of(folder.weights)
    assert folder.result().kept_step == (6 if keep == "best" else 9)


def test_a_run_ends_with_its_patience_and_stays_ended(
    points: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = points.distill_run({"features": POINTS}, steps=30, evaluate_every=3, patience=2, keep="best")
    monkeypatch.setattr("rdmd.training.run.evaluations_of", Scripted(3.0, 2.0, 2.5, 2.0))
    folder = trained(run, tmp_path)
    assert (folder.result().steps, folder.result().kept_step) == (12, 6)
    # Killed between its last checkpoint and its result, it has nothing left to do but to write it.
    expected = sha256_of(folder.weights)
    folder.result_file.unlink()
    folder.weights.unlink()
    monkeypatch.setattr("rdmd.training.run.evaluations_of", Scripted())
    again = trained(run, tmp_path)
    assert (again.result().steps, again.result().kept_step) == (12, 6)
    assert sha256_of(again.weights) == expected


def test_a_resumed_run_knows_its_best(points: Materials, tmp_path: Path):
    """Stopped after the best evaluation, it keeps those weights, and goes on counting."""
    settings = {"steps": 12, "evaluate_every": 3, "patience": 3, "sample_every": 0}
    run, distances = points.distill_run({"features": POINTS}, **settings), [2.0, 1.0, 3.0, 3.0]

    class StopAt(StopRequest):
        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

        def requested(self, accelerator: object, t: int) -> bool:
            return t == self.step

    def through(name: str, stops: list[int]) -> tuple[Progress, list[Point]]:
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        evaluations = Scripted(*distances)
        for stop in [*stops, 0]:
            objective = points.distill({"features": POINTS}, **settings)
            progress = train(objective, run, folder, accelerator(), StopAt(stop), evaluations=evaluations(run))
        return progress, folder.curves()

    straight, curves = through("straight", [])
    stopped, resumed_curves = through("stopped", [7, 9])
    assert (stopped.steps, stopped.finished, stopped.best.step, stopped.best.since) == (12, True, 6, 2)
    assert straight.best.weights.keys() == stopped.best.weights.keys()
    for name, weight in straight.best.weights.items():
        assert torch.equal(weight, stopped.best.weights[name])
    assert {p.step: p.values.get("eval_sw2") for p in curves} | {7: None} == {
        p.step: p.values.get("eval_sw2") for p in resumed_curves
    }


def test_settings_of_evaluations_count_only_where_there_are_any(points: Materials):
    off = fingerprint(points.distill_run())
    assert fingerprint(points.distill_run(evaluate_n=9)) == off
    on = [
        fingerprint(points.distill_run({"features": POINTS}, evaluate_every=5, **changed))
        for changed in ({}, {"evaluate_n": 9}, {"keep": "best"}, {"patience": 2})
    ]
    assert len({off, *on}) == 5


@pytest.mark.parametrize("given", [{"keep": "best"}, {"patience": 3}])
def test_what_needs_evaluations_says_so(points: Materials, given: dict):
    settings = points.settings.teacher.model_dump(exclude_unset=True)
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` needs evaluations, but `evaluate_every` is 0"):
        config.Teacher.model_validate(settings | given)
    config.Teacher.model_validate(settings | given | {"evaluate_every": 10})


def test_the_progress_line_keeps_the_last_evaluation(capsys: pytest.CaptureFixture[str]):
    with run_bar("run", 30, disable=False) as bar:
        bar.follow([Point(10, {"cost": 1.0, "eval_fid": 7.25, "eval_fid_0.05": 3.0}), Point(20, {"cost": 2.0})])
    said = capsys.readouterr().err
    assert "cost=2" in said and "eval_fid=7.25" in said and "0.05" not in said
