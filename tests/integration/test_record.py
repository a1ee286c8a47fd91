"""What MLflow holds of a sweep, in a real SQLite store: data, settings, system metrics, evaluations, models."""

import contextlib
import dataclasses
import getpass
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.backends import backend
from flows.registry.promote import register_sweep
from flows.server import free_port
from flows.tracking import training
from flows.tracking.evaluation import record_evaluation
from flows.tracking.runs import Record, create_run, open_record, sweep_run
from flows.tracking.training import Recorder, digests, tracked
from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.data.preprocess import preprocess
from rdmd.errors import Interrupted, UserError
from rdmd.evaluation.row import FeaturesRecord, Metrics, Row
from rdmd.evaluation.table import read_metrics, write_metrics
from rdmd.pipeline.jobs import plan_generators
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import LocalTraining, SlotPool, Watch, publish_generators, train_teacher
from rdmd.training.run_folder import Point, RunFolder
from tests.conftest import ROOT, fresh_store, mlflow_server, params, tiny_points

REPORTS = ("pareto.csv", "pareto.png", "samples.png", "index.html")


@dataclass
class Sweep:
    """A trained and recorded sweep with made-up scores."""

    record: Record
    settings: config.Settings
    layout: Layout

    @property
    def parent(self) -> Run:
        return sweep_run(self.record, self.settings, digests(self.layout))

    def children(self, parent: Run | None = None) -> dict[str, Run]:
        wanted = f"tags.mlflow.parentRunId = '{(parent or self.parent).info.run_id}'"
        runs = self.record.client.search_runs([self.record.experiment_id], wanted)
        return {run.info.run_name: run for run in runs}

    def watch(self) -> Watch:
        return lambda folder, run: tracked(self.record, self.parent, folder, run)

    def score(self, sw2: float) -> Metrics:
        """Scores for the generator and SDEdit in reports/metrics.json, recorded."""
        run = json.loads((self.layout.generators / "lambda-0.05" / "model.json").read_text())["run"]
        rows = [
            Row(method="rdmd", lam=0.05, run=run, nfe=1, cost=0.25, cost_se=0.01, sw2=sw2, sw2_ci=(0.1, 0.9),
                on_front=True, seconds_per_image=0.001, settings={"sigma_init": 1.0, "run": run}),
            Row(method="sdedit", nfe=7, cost=0.5, sw2=0.125, settings={"sigma": 0.6, "steps": 4}),
        ]  # fmt: skip
        metrics = Metrics(
            experiment="swissroll",
            seed=self.settings.seed,
            features=FeaturesRecord(name="none", sha256=None, dim=2),
            n_source=300,
            n_reference=300,
            rows=rows,
        )
        write_metrics(metrics, self.layout.metrics)
        for name in REPORTS:
            (self.layout.reports / name).write_text("made up", encoding="utf-8")
        record_evaluation(self.record, self.parent, metrics, self.layout)
        return metrics


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A teacher and one generator, trained by processes, in the current folder; the teacher in the stage `teacher`."""
    folder = tmp_path_factory.mktemp("record")
    (folder / "params.yaml").write_text(params("swissroll", tiny_points), encoding="utf-8")
    for name in ("rdmd", "flows", "mlflow"):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        uri = fresh_store(folder / "store" / "mlflow.db")
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.3")
        mlflow.set_tracking_uri(uri)
        settings, layout = config.load(), Layout()
        for name in ("source", "target"):
            preprocess(settings, name, layout.shards / name)
        made = Sweep(open_record(settings.experiment), settings, layout)
        patch.setenv("DVC_STAGE", "teacher")
        processes = TrainingProcesses()
        train_teacher(settings, layout, made.watch(), processes)
        patch.setenv("DVC_STAGE", "distill")
        run = plan_generators(settings, layout)[0]
        generator = LocalTraining(SlotPool(settings.launch), layout, made.watch(), processes).train(run)
        publish_generators(settings, layout, [generator])
        made.score(0.5)
        yield made
        mlflow.set_tracking_uri(None)


def test_runs_name_their_data_with_digest_schema_and_use(sweep: Sweep):
    teacher, generator, sdedit = (
        sweep.children()[name] for name in ("teacher", "lambda-0.05", "sdedit sigma 0.6 steps 4")
    )
    assert used(teacher) == {"target-train": "training"}
    assert used(generator) == {"source-train": "training", "target-train": "training", "test": "evaluation"}
    assert used(sdedit) == {"test": "evaluation"}
    assert used(sweep.record.client.get_run(sweep.parent.info.run_id)) == used(generator)
    named = {one.dataset.name: one.dataset for one in generator.inputs.dataset_inputs}
    target = read_manifest(sweep.layout.shards / "target")
    assert named["target-train"].digest == target.digest[:16]
    features = json.loads(named["target-train"].schema)["mlflow_tensorspec"]["features"]
    assert json.loads(features)[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 2]}
    assert json.loads(named["target-train"].profile)["num_rows"] == target.counts["train"] == 2000
    assert json.loads(named["test"].profile) == {"num_source": 1000, "num_target": 1000}
    assert len(named["test"].digest) <= 36


def used(run: Run) -> dict[str, str]:
    """The names of a run's data, each with what it was used for."""
    return {one.dataset.name: one.tags[0].value for one in run.inputs.dataset_inputs}


def test_settings_have_the_keys_and_values_of_params_yaml(sweep: Sweep):
    typed = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    teacher, generator = sweep.children()["teacher"].data.params, sweep.children()["lambda-0.05"].data.params
    for key in ("steps", "batch", "lr", "ema", "init"):
        assert json.loads(teacher[f"teacher.{key}"]) == typed["teacher"][key]
    assert teacher["teacher.noise.distribution"] == "lognormal"
    assert json.loads(generator["distill.generator_lr"]) == typed["distill"]["generator_lr"]
    assert (generator["lambda"], generator["method"], generator["network.width"]) == ("0.05", "rdmd", "32")
    whole = sweep.record.client.get_run(sweep.parent.info.run_id).data.params
    assert json.loads(whole["baselines.sdedit.sigmas"]) == [1.0]


def test_stage_commit_and_fingerprint_are_tags(sweep: Sweep):
    for name, stage in (("teacher", "teacher"), ("lambda-0.05", "distill")):
        tags = sweep.children()[name].data.tags
        assert tags["dvc_stage"] == stage
        assert tags["git_commit"]
        assert (sweep.layout.runs / tags["rdmd.run"] / "result.json").exists()


def test_every_run_says_who_created_it_and_how(sweep: Sweep):
    for run in [sweep.parent, *sweep.children().values()]:
        tags = run.data.tags
        assert (tags["mlflow.user"], tags["mlflow.source.type"]) == (getpass.getuser(), "LOCAL")
        assert tags["mlflow.source.name"] == Path(sys.argv[0]).name
        # As text the commit ends in "+changes" where a file was edited, which MLflow's link would not find.
        assert tags["git_commit"].startswith(tags.get("mlflow.source.git.commit", "unknown"))


def test_the_program_of_a_run_in_a_copy_is_named_as_in_the_checkout(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "flows/stages/evaluate.py")])
    run = create_run(sweep.record, "in a copy", {})
    assert run.data.tags["mlflow.source.name"] == "flows/stages/evaluate.py"


def test_the_machine_is_watched_while_it_trains(sweep: Sweep):
    client = sweep.record.client
    teacher = sweep.children()["teacher"]
    for name in ("cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_usage_percentage"):
        history = client.get_metric_history(teacher.info.run_id, f"system/{name}")
        assert len(history) >= 2, "a training process takes seconds to start"
        assert all(one.value >= 0 for one in history)
    assert "system/cpu_utilization_percentage" not in sweep.children()["sdedit sigma 0.6 steps 4"].data.metrics


def test_grids_are_images_over_steps(sweep: Sweep):
    run = sweep.children()["lambda-0.05"]
    images = [item.path for item in sweep.record.client.list_artifacts(run.info.run_id, "images")]
    # MLflow parts its file names by % or +, as the store can.
    steps = {int(re.search(r"[%+]step[%+](\d+)[%+]", path)[1]) for path in images}
    assert steps == {20, 40}


def test_rows_are_compared_by_the_names_of_metrics_json(sweep: Sweep):
    generator, sdedit = (sweep.children()[name] for name in ("lambda-0.05", "sdedit sigma 0.6 steps 4"))
    # The last point of the training curve has another value, and another name.
    assert generator.data.metrics["cost"] == 0.25
    assert generator.data.metrics["train/cost"] != 0.25
    assert (sdedit.data.metrics["cost"], sdedit.data.metrics["sw2"]) == (0.5, 0.125)
    assert (sdedit.data.params["sigma"], sdedit.data.params["nfe"]) == ("0.6", "7")
    assert generator.data.metrics["sw2_ci_high"] == 0.9


def test_recording_again_adds_nothing_and_new_numbers_replace(sweep: Sweep):
    client = sweep.record.client
    before = sweep.children()
    sweep.score(0.5)
    run_id = sweep.children()["lambda-0.05"].info.run_id
    assert set(sweep.children()) == set(before)
    assert len(client.get_metric_history(run_id, "sw2")) == 1
    sweep.score(0.75)
    assert sweep.children()["lambda-0.05"].data.metrics["sw2"] == 0.75
    sweep.score(0.5)
    assert sweep.children()["lambda-0.05"].data.metrics["sw2"] == 0.5


def test_another_sweep_shows_the_runs_that_it_reuses(sweep: Sweep):
    other = dataclasses.replace(
        sweep,
        settings=sweep.settings.model_copy(
            update={"evaluate": sweep.settings.evaluate.model_copy(update={"n_source": 200})}
        ),
    )
    assert other.parent.info.run_id != sweep.parent.info.run_id
    other.score(0.5)
    for name in ("teacher", "lambda-0.05"):
        first, again = sweep.children()[name], other.children()[name]
        assert first.info.run_id != again.info.run_id
        assert first.data.tags["rdmd.run"] == again.data.tags["rdmd.run"]
        curve = {key: value for key, value in first.data.metrics.items() if key.startswith("train/")}
        assert curve
        assert curve.items() <= again.data.metrics.items()
        assert "system/cpu_utilization_percentage" not in again.data.metrics, "nothing was trained for it"


def test_a_locked_store_loses_no_point_and_ends_no_training(sweep: Sweep, capsys: pytest.CaptureFixture[str]):
    store = Path(mlflow.get_tracking_uri().removeprefix("sqlite:///"))
    folder = RunFolder.prepare(sweep.layout.runs, plan_generators(sweep.settings, sweep.layout)[0])
    run = sweep.record.client.create_run(sweep.record.experiment_id)
    recorder = Recorder(sweep.record.client, run.info.run_id, folder)
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        for step in (1000, 2000):
            recorder.record([Point(step=step, values={"loss": 1 / step})])
        lock.execute("ROLLBACK")
    # One sentence, and nothing of MLflow's own.
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "locked by another process" in line] == said, said
    assert len(said) == 1
    recorder.finish()
    found = sweep.record.client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in found] == [(1000, 1 / 1000), (2000, 1 / 2000)]
    assert sweep.record.client.get_run(run.info.run_id).data.tags["sha256"], "the outcome of the training"


@pytest.mark.slow
def test_a_server_that_is_away_for_a_while_loses_no_point(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(training, "RETRY_SECONDS", 0.1)
    store, port = fresh_store(tmp_path / "mlflow.db"), free_port()
    folder = RunFolder.prepare(sweep.layout.runs, plan_generators(sweep.settings, sweep.layout)[0])
    with mlflow_server(store, port, tmp_path / "artifacts") as uri:
        client = MlflowClient(uri)
        run = client.create_run("0").info.run_id
        recorder = Recorder(client, run, folder)
        recorder.record([Point(step=1000, values={"loss": 1.0})])
    for step in (2000, 3000):
        recorder.record([Point(step=step, values={"loss": 1000 / step})])
    said = [line for line in capsys.readouterr().err.splitlines() if "does not take the record" in line]
    assert len(said) == 1 and "training goes on" in said[0]
    with mlflow_server(store, port, tmp_path / "artifacts"):
        recorder.finish()
        found = [(one.step, one.value) for one in client.get_metric_history(run, "train/loss")]
    assert found == [(1000, 1.0), (2000, 0.5), (3000, 1000 / 3000)]


def test_a_store_that_stays_locked_leaves_a_finished_training(sweep: Sweep, monkeypatch: pytest.MonkeyPatch):
    store = Path(mlflow.get_tracking_uri().removeprefix("sqlite:///"))
    monkeypatch.setattr(training, "OUTAGE_SECONDS", 0.0)
    folder = RunFolder.prepare(sweep.layout.runs, plan_generators(sweep.settings, sweep.layout)[0])
    run = sweep.record.client.create_run(sweep.record.experiment_id)
    recorder = Recorder(sweep.record.client, run.info.run_id, folder)
    recorder.record([])
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"is finished and kept in .*locked by another process.*repeat the command"):
            recorder.finish()


def test_a_sweep_runs_while_a_stage_works_and_not_after_it(sweep: Sweep):
    client, parent = sweep.record.client, sweep.parent.info.run_id

    def status(run_id: str = parent) -> str:
        return str(client.get_run(run_id).info.status)

    assert status() == "FINISHED", "a new one does not run"
    ends = ((KeyboardInterrupt, "KILLED"), (Interrupted, "KILLED"), (UserError, "FAILED"), (None, "FINISHED"))
    for error, expected in ends:
        with contextlib.suppress(error or ()), backend(sweep.settings, sweep.layout):
            assert status() == "RUNNING"
            # Of a training whose thread does not get to record its end.
            child = client.create_run(sweep.record.experiment_id, tags={MLFLOW_PARENT_RUN_ID: parent}).info.run_id
            if error is not None:
                raise error
        assert status() == expected
        if expected == "KILLED":
            assert status(child) == "KILLED"


def test_the_model_has_its_metrics_with_their_data(sweep: Sweep):
    client = MlflowClient()
    sweep.score(0.5)
    ended = {run.info.run_id: run.info.end_time for run in client.search_runs([sweep.record.experiment_id])}
    for _ in range(2):
        (version,) = register_sweep(sweep.record, sweep.settings, sweep.layout).versions
    assert version.tags["registered_by"] == getpass.getuser()
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    metrics = {one.key: one for one in model.metrics}
    assert len(model.metrics) == len(metrics), "each once"
    assert client.get_run(version.run_id).info.end_time == ended[version.run_id], "registering is no training"
    assert metrics["train/cost"].step == 40, "the last of its training"
    assert (metrics["cost"].value, metrics["sw2"].value) == (0.25, 0.5)
    assert (metrics["cost"].dataset_name, metrics["cost"].dataset_digest) == ("test", version.tags["data_digest"])
    assert model.params["lambda"] == "0.05"
    found = client.search_logged_models(
        [sweep.record.experiment_id],
        "metrics.sw2 < 0.6",
        datasets=[{"dataset_name": "test", "dataset_digest": version.tags["data_digest"]}],
    )
    assert [one.model_id for one in found] == [model.model_id]


def test_it_is_registered_from_files_where_no_shards_are(sweep: Sweep, tmp_path: Path):
    for name in ("models", "reports"):
        shutil.copytree(sweep.layout.root / name, tmp_path / name)
    assert read_metrics(Layout(tmp_path).metrics).rows
    assert register_sweep(sweep.record, sweep.settings, Layout(tmp_path)).versions
