"""What baselines train, as processes: reused, resumed bit for bit, published, and evaluated over their dials."""

import contextlib
import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from rdmd import config
from rdmd.baselines.ddib import DDIB
from rdmd.baselines.neural_ot import potential_loss
from rdmd.data.preprocess import preprocess
from rdmd.data.sampling import StepRandom
from rdmd.errors import UserError
from rdmd.evaluation.evaluator import NamedTranslator
from rdmd.files import sha256_of
from rdmd.pipeline.evaluation import evaluate_one, evaluation_task
from rdmd.pipeline.jobs import plan_baselines, plan_teacher
from rdmd.pipeline.launch import Slot
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card, weights_of
from rdmd.pipeline.model_folder import load_denoiser
from rdmd.pipeline.training import train_baselines, train_teacher
from rdmd.pipeline.translators import baselines
from rdmd.training.neural_ot import NeuralOTObjective
from rdmd.training.run_config import NeuralOTRun, TrainingRun, fingerprint, run_name
from rdmd.training.run_folder import RunFolder
from tests.conftest import ROOT, params, tiny_digits, tiny_points, trained_baselines
from tests.in_process import InThisProcess
from tests.integration.test_runs import start, wait_for_step

ONE_THREAD = Slot("cpu", (), 1)
CPU = torch.device("cpu")
# Where images would show nothing more, or want a feature network (the pipeline's test has one).
on_points = pytest.mark.parametrize("trained", ["swissroll"], indirect=True)


def every_baseline(settings: dict) -> None:
    """All of them, tiny; ILVR where there are images."""
    settings["teacher"] |= {"steps": 10, "checkpoint_every": 5, "log_every": 5, "sample_every": 10}
    settings["baselines"] = {
        "sdedit": {"sigmas": [1.0], "steps": 3},
        "sdedit_sde": {"sigmas": [1.0], "steps": 3},
    }
    trained_baselines(settings)
    if settings["preprocess"]["kind"] == "images":
        settings["baselines"]["ilvr"] = {"factors": [2, 4], "sigma_stops": [0.0, 1.0], "steps": 3}


def tiny_points_with_every_baseline(settings: dict) -> None:
    tiny_points(settings)
    every_baseline(settings)


def tiny_digits_with_every_baseline(settings: dict) -> None:
    tiny_digits(settings)
    every_baseline(settings)


@contextlib.contextmanager
def unwatched(folder: RunFolder, run: TrainingRun) -> Iterator:
    yield lambda points: None


Trained = tuple[config.Settings, Layout]


@pytest.fixture(scope="module", params=["swissroll", "digits"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A teacher and everything that baselines train, on points and on images, in the current folder."""
    tiny = {"swissroll": tiny_points_with_every_baseline, "digits": tiny_digits_with_every_baseline}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "params.yaml").write_text(params(request.param, tiny), encoding="utf-8")
    (folder / "rdmd").symlink_to(ROOT / "rdmd")
    with contextlib.chdir(folder):
        settings, layout = config.load(), Layout()
        for name in ("source", "target"):
            preprocess(settings, name, layout.shards / name)
        train_teacher(settings, layout, unwatched, InThisProcess())
        train_baselines(settings, layout, unwatched, InThisProcess())
        yield settings, layout


def test_each_run_is_published_under_its_name_with_its_card(trained: Trained):
    settings, layout = trained
    kinds = {"source-teacher": "teacher", "domain-classifier": "domain-classifier", "neural-ot-0.5": "transport-map"}
    if settings.preprocess.kind == "images":
        kinds["cut-0.5"] = "cut-generator"
    runs = {run_name(run): fingerprint(run) for run in plan_baselines(settings, layout)}
    assert json.loads((layout.baselines / "baselines.json").read_text(encoding="utf-8")) == {"trained": runs}
    assert {path.name for path in layout.baselines.iterdir()} == {*kinds, "baselines.json"}
    for name, kind in kinds.items():
        card = read_card(layout.baselines / name)
        assert (card.kind, card.run) == (kind, runs[name])
        assert weights_of(layout.baselines / name, card).is_file()
    assert read_card(layout.baselines / "neural-ot-0.5").cost_weight == 0.5


def test_the_source_teacher_is_the_teacher_but_for_the_domain(trained: Trained):
    settings, layout = trained
    source = next(run for run in plan_baselines(settings, layout) if run_name(run) == "source-teacher")
    target = plan_teacher(settings, layout)
    differing = {key for key in source.model_dump() if getattr(source, key) != getattr(target, key)}
    assert differing == {"domain", "target"}
    assert read_card(layout.baselines / "source-teacher").target_digest != read_card(layout.teacher).target_digest
    assert read_card(layout.baselines / "source-teacher").sha256 != read_card(layout.teacher).sha256


def test_every_run_kept_checkpoints_curves_and_grids(trained: Trained):
    settings, layout = trained
    logged = {
        "teacher": {"loss"},
        "domain-classifier": {"domain_loss"},
        "cut": {"gan_loss", "nce_loss", "discriminator_loss"},
    }
    for run in plan_baselines(settings, layout):
        folder = RunFolder(layout.runs / fingerprint(run))
        assert folder.read_run() == run
        assert [point.step for point in folder.curves()] == [5, 10]
        names = logged.get(run.kind, {"map_loss", "cost", "potential_loss"})
        assert all(set(point.values) == names for point in folder.curves())
        assert [path.name for path in folder.samples.iterdir()] == ["10.png"]
        assert folder.result().train_seconds > 0


def test_every_dial_is_a_row_with_its_evaluations(trained: Trained):
    settings, layout = trained
    every = list(baselines(settings.baselines, layout, CPU))
    # Heun 2n - 1; ancestral steps n; DDIB 2(n - 1) up and 2n - 1 down; a map 1.
    expected = {
        "sdedit": [({"sigma": 1.0, "steps": 3}, 5)],
        "sdedit-sde": [({"sigma": 1.0, "steps": 3}, 3)],
        "egsde": [
            ({"sigma": sigma, "repel": repel, "attract": 1.0, "factor": 2, "steps": 3}, 3)
            for sigma in (0.5, 2.0)
            for repel in (0.0, 10.0)
        ],
        "ddib": [({"steps": 2}, 5), ({"steps": 3}, 9)],
    }
    if settings.preprocess.kind == "images":
        expected["ilvr"] = [
            ({"factor": factor, "sigma_stop": stop, "steps": 3}, 3) for factor in (2, 4) for stop in (0.0, 1.0)
        ]
    expected["neural-ot"] = [({"cost_weight": 0.5, "run": read_card(layout.baselines / "neural-ot-0.5").run}, 1)]
    if settings.preprocess.kind == "images":
        expected["cut"] = [({"nce_weight": 0.5, "run": read_card(layout.baselines / "cut-0.5").run}, 1)]
    found: dict[str, list] = {}
    for one in every:
        found.setdefault(one.method, []).append((one.settings, one.nfe))
    assert found == expected


def test_only_what_was_trained_for_a_baseline_is_its_training_time(trained: Trained):
    settings, layout = trained
    seconds = {one.method: one.train_seconds for one in baselines(settings.baselines, layout, CPU)}
    untrained = {method for method, spent in seconds.items() if spent is None}
    assert untrained == {"sdedit", "sdedit-sde", "ilvr"} & set(seconds)
    assert seconds["ddib"] == read_card(layout.baselines / "source-teacher").train_seconds
    assert seconds["egsde"] == read_card(layout.baselines / "domain-classifier").train_seconds
    assert seconds["neural-ot"] == read_card(layout.baselines / "neural-ot-0.5").train_seconds


def test_every_dial_changes_the_translation_and_no_two_are_alike(trained: Trained):
    settings, layout = trained
    torch.manual_seed(0)
    source = torch.rand(4, *settings.sample_shape) * 2 - 1
    every = list(baselines(settings.baselines, layout, CPU))
    outputs = [translate(one, source) for one in every]
    for output in outputs:
        assert output.shape == source.shape
        assert output.isfinite().all()
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[i + 1 :])
    again = [translate(one, source) for one in every]
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True)), "a function of source and rng alone"


def test_ddib_goes_up_with_the_source_teacher_and_down_with_the_target_s(trained: Trained):
    settings, layout = trained
    source = torch.rand(4, *settings.sample_shape)
    _, up = load_denoiser(layout.baselines / "source-teacher", CPU)
    _, down = load_denoiser(layout.teacher, CPU)
    one = next(one for one in baselines(settings.baselines, layout, CPU) if one.method == "ddib")
    torch.testing.assert_close(translate(one, source), DDIB(up, down, steps=2)(source, torch.Generator()))


def translate(one: NamedTranslator, source: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return one.map(source, torch.Generator().manual_seed(1))


@on_points
def test_points_go_through_the_evaluator(trained: Trained):
    settings, layout = trained
    task = evaluation_task(settings, layout)
    for one in baselines(settings.baselines, layout, CPU):
        row = evaluate_one(one, task).row
        assert row.settings == one.settings
        assert row.sw2 is not None


@on_points
def test_finished_runs_are_reused_and_one_more_weight_trains_one_more_map(trained: Trained):
    settings, layout = trained
    before = {file: file.stat().st_mtime_ns for file in layout.runs.glob("*/result.json")}
    weights = settings.baselines.neural_ot.model_copy(update={"cost_weights": [0.5, 2.0]})
    wider = settings.baselines.model_copy(update={"neural_ot": weights})
    train_baselines(settings.model_copy(update={"baselines": wider}), layout, unwatched, InThisProcess())
    after = {file: file.stat().st_mtime_ns for file in layout.runs.glob("*/result.json")}
    assert len(after) == len(before) + 1
    assert {file: after[file] for file in before} == before
    maps = [one for one in baselines(wider, layout, CPU) if one.method == "neural-ot"]
    assert [one.settings["cost_weight"] for one in maps] == [0.5, 2.0]
    assert len({one.settings["run"] for one in maps}) == 2
    publish_again = train_baselines(settings, layout, unwatched, InThisProcess())
    assert len(publish_again) == 3
    assert not (layout.baselines / "neural-ot-2").exists()


def test_without_baselines_that_train_the_folder_says_so(trained: Trained):
    settings, layout = trained
    few = config.Baselines(sdedit=settings.baselines.sdedit)
    elsewhere = Layout(Path("few"))
    elsewhere.root.mkdir(exist_ok=True)
    if not elsewhere.shards.exists():
        elsewhere.shards.parent.mkdir(parents=True)
        elsewhere.shards.symlink_to(layout.shards.resolve())
    fewer = settings.model_copy(update={"baselines": few})
    assert train_baselines(fewer, elsewhere, unwatched, InThisProcess()) == []
    assert [path.name for path in elsewhere.baselines.iterdir()] == ["baselines.json"]
    with pytest.raises(UserError, match=r"neural-ot-0\.5/model\.json does not exist"):
        list(baselines(config.Baselines(neural_ot=settings.baselines.neural_ot), elsewhere, CPU))


@on_points
def test_a_killed_map_resumes_to_the_same_bits(trained: Trained, tmp_path: Path):
    settings, layout = trained
    run = next(run for run in plan_baselines(settings, layout) if isinstance(run, NeuralOTRun))
    run = run.model_copy(update={"settings": run.settings.model_copy(update={"steps": 200, "log_every": 1})})
    straight, killed = RunFolder.prepare(tmp_path / "a", run), RunFolder.prepare(tmp_path / "b", run)
    InThisProcess().train(straight, ONE_THREAD, lambda points: None)

    child = start(killed)
    wait_for_step(killed, 12)
    child.kill()
    child.wait()
    assert killed.result() is None
    assert killed.checkpoint.exists()
    InThisProcess().train(killed, ONE_THREAD, lambda points: None)

    assert sha256_of(killed.weights) == sha256_of(straight.weights)
    assert killed.curves() == straight.curves()
    assert all(a.step < b.step for a, b in pairwise(killed.curves()))


@on_points
def test_the_potential_steps_along_its_own_loss_alone(trained: Trained):
    """The map's loss reaches the potential too, and must leave nothing in its gradient."""
    settings, layout = trained
    run = next(run for run in plan_baselines(settings, layout) if isinstance(run, NeuralOTRun))
    objective = NeuralOTObjective(run, Accelerator(cpu=True))
    before = copy.deepcopy(objective.modules["potential"])
    random = StepRandom(seed=3, rank=0, step=0, device=CPU)
    objective.step(0, random)
    x = objective.source.batch(run.settings.batch, random, "source")
    y = objective.target.batch(run.settings.batch, random, "target")
    potential_loss(objective.modules["map"], before, x, y, run.settings.r1).mean().backward()
    moments = objective.optimizers["potential"].state
    for old, new in zip(before.parameters(), objective.modules["potential"].parameters(), strict=True):
        # Adam's first moment after one step.
        torch.testing.assert_close(moments[new]["exp_avg"], (1 - run.settings.beta1) * old.grad)


def test_what_changes_a_map_changes_its_fingerprint_and_nothing_else_does(trained: Trained):
    settings, layout = trained
    run = next(run for run in plan_baselines(settings, layout) if isinstance(run, NeuralOTRun))

    def changed(**given: object) -> str:
        return fingerprint(run.model_copy(update={"settings": run.settings.model_copy(update=given)}))

    assert changed(cost_weights=[0.5, 7.0], checkpoint_every=3) == fingerprint(run)
    assert len({fingerprint(run), changed(r1=0.0), changed(map_steps=3), changed(decay="cosine")}) == 4
    assert fingerprint(run.model_copy(update={"cost_weight": 0.7})) != fingerprint(run)
