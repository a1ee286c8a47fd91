"""The flows on a real Prefect API and a real MLflow store with its registry, on tiny swissroll."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.pipeline.layout import Layout
from tests.conftest import ROOT, fresh_store, params, tiny_points, trained_baselines
from tests.in_process import InThisProcess


@pytest.fixture(scope="module")
def harness() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.fixture(scope="module")
def ran(harness: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[config.Settings, Layout]]:
    """Everything run once, in a folder that is the current one while this module's tests run."""
    from flows.stages.evaluate import evaluate
    from flows.stages.register import register
    from flows.stages.training import baselines, distill, teacher

    folder = tmp_path_factory.mktemp("flows")
    (folder / "params.yaml").write_text(params("swissroll", tiny_points_with_baselines), encoding="utf-8")
    for name in ("rdmd", "flows", "mlflow"):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        uri = fresh_store(folder / "store" / "mlflow.db")
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        # Tiny runs are shorter than the ten seconds between two points of a real one.
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.3")
        mlflow.set_tracking_uri(uri)
        patch.setattr("flows.backends.TrainingProcesses", InThisProcess)
        settings, layout = config.load(), Layout()
        for name in ("source", "target"):
            preprocess(settings, name, layout.shards / name)
        for flow in (teacher, distill, baselines, evaluate, register):
            flow(settings, layout)
        yield settings, layout
        mlflow.set_tracking_uri(None)


def tiny_points_with_baselines(settings: dict) -> None:
    tiny_points(settings)
    trained_baselines(settings)


def runs_of(settings: config.Settings) -> list:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(f"rdmd/{settings.experiment}")
    return client.search_runs([experiment.experiment_id])


def test_the_sweep_is_one_run_with_children(ran: tuple[config.Settings, Layout]):
    settings, _ = ran
    runs = {run.info.run_name: run for run in runs_of(settings)}
    (parent,) = [run for name, run in runs.items() if name.startswith("sweep ")]
    children = {name: run for name, run in runs.items() if run is not parent}
    trained = {"teacher", "lambda-0.05", "lambda-0.5", "source-teacher", "domain-classifier", "neural-ot-0.5"}
    assert trained <= set(children)
    assert set(children) - trained == {
        "identity",
        "target",
        "sdedit sigma 1.0 steps 4",
        "ddib steps 2",
        "ddib steps 3",
        *(
            f"egsde sigma {sigma} repel {repel} attract 1.0 factor 2 steps 3"
            for sigma in (0.5, 2.0)
            for repel in (0.0, 10.0)
        ),
    }
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children.values())
    assert all(run.info.status == "FINISHED" for run in runs.values())
    assert children["lambda-0.5"].data.params["lambda"] == "0.5"
    assert children["neural-ot-0.5"].data.params["cost_weight"] == "0.5"
    assert parent.data.params["teacher.steps"] == "60"


def test_curves_and_grids_are_recorded_as_they_were_logged(ran: tuple[config.Settings, Layout]):
    settings, layout = ran
    client = MlflowClient()
    child = next(run for run in runs_of(settings) if run.info.run_name == "lambda-0.05")
    history = client.get_metric_history(child.info.run_id, "train/cost")
    folder = layout.runs / child.data.tags["rdmd.run"]
    from rdmd.training.run_folder import RunFolder

    logged = {point.step: point.values["cost"] for point in RunFolder(folder).curves()}
    assert {m.step: m.value for m in history} == pytest.approx(logged)
    assert len(logged) == 4
    grids = [item.path for item in client.list_artifacts(child.info.run_id, "samples")]
    assert grids == ["samples/20.png", "samples/40.png"]


def test_each_lambda_was_a_task_and_each_flow_completed(ran: tuple[config.Settings, Layout]):
    with get_client(sync_client=True) as client:
        names = {run.name: run.state_name for run in client.read_task_runs()}
        flows = {run.name: run.state_name for run in client.read_flow_runs()}
    assert names["train generator, lambda 0.05"] == names["train generator, lambda 0.5"] == "Completed"
    assert names["evaluate SDEdit, sigma 1, steps 4"] == names["evaluate RDMD, lambda 0.5"] == "Completed"
    assert names["train source teacher"] == names["train neural OT map, cost weight 0.5"] == "Completed"
    stages = ("teacher", "distill", "baselines", "evaluate", "register")
    assert flows == {f"swissroll {stage}": "Completed" for stage in stages}


def test_each_training_stage_leaves_its_curves(ran: tuple[config.Settings, Layout]):
    _, layout = ran
    found = {}
    for stage in ("teacher", "generators", "baselines"):
        with (layout.curves / f"{stage}.csv").open(encoding="utf-8") as file:
            found[stage] = {(line["model"], line["metric"], int(line["step"])) for line in csv.DictReader(file)}
    assert {("teacher", "loss", step) for step in range(10, 70, 10)} == found["teacher"]
    assert {("lambda-0.05", "cost", 40), ("lambda-0.5", "fake_loss", 40)} <= found["generators"]
    assert "source-teacher" in {model for model, *_ in found["baselines"]}


def test_the_front_is_registered_with_its_aliases(ran: tuple[config.Settings, Layout]):
    from rdmd.evaluation.table import read_metrics

    _, layout = ran
    client = MlflowClient()
    front = [row for row in read_metrics(layout.metrics).rows if row.on_front]
    versions = client.search_model_versions("name = 'rdmd-swissroll'")
    assert {version.tags["lambda"] for version in versions} == {f"{row.lam:g}" for row in front}
    faithful = client.get_model_version_by_alias("rdmd-swissroll", "most-faithful")
    assert float(faithful.tags["cost"]) == pytest.approx(min(row.cost for row in front), rel=1e-4)  # six digits kept
    realistic = client.get_model_version_by_alias("rdmd-swissroll", "most-realistic")
    assert float(realistic.tags["sw2"]) == pytest.approx(min(row.sw2 for row in front), rel=1e-4)
    assert client.get_model_version_by_alias("rdmd-swissroll", "champion").version in {v.version for v in versions}


def test_the_registered_model_gives_what_its_files_give(ran: tuple[config.Settings, Layout]):
    import torch

    from rdmd.pipeline.model_folder import load_generator
    from rdmd.training.run_config import lambda_name

    _, layout = ran
    champion = MlflowClient().get_model_version_by_alias("rdmd-swissroll", "champion")
    served = mlflow.pyfunc.load_model("models:/rdmd-swissroll@champion")
    points = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    _, generator = load_generator(layout.generators / lambda_name(float(champion.tags["lambda"])), torch.device("cpu"))
    np.testing.assert_allclose(served.predict(points), generator(torch.from_numpy(points)).numpy(), atol=1e-6)


def test_running_the_stages_again_doubles_nothing(ran: tuple[config.Settings, Layout]):
    from flows.stages.register import register
    from flows.stages.training import distill

    settings, layout = ran
    before = (len(runs_of(settings)), len(MlflowClient().search_model_versions("name = 'rdmd-swissroll'")))
    registered = layout.registry.read_bytes()
    distill(settings, layout)
    register(settings, layout)
    after = (len(runs_of(settings)), len(MlflowClient().search_model_versions("name = 'rdmd-swissroll'")))
    assert after == before
    assert layout.registry.read_bytes() == registered


def test_the_registry_is_rebuilt_from_files_alone(
    ran: tuple[config.Settings, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As when DVC skipped every earlier stage on another machine: no runs, an empty store."""
    from flows.stages.register import register

    settings, layout = ran
    for name in ("models", "reports"):
        shutil.copytree(layout.root / name, tmp_path / name)
    uri = fresh_store(tmp_path / "store" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        registered = register(settings, Layout(tmp_path))
        model = mlflow.pyfunc.load_model(registered["champion"])
        assert model.predict(np.zeros((3, 2), dtype=np.float32)).shape == (3, 2)
    finally:
        mlflow.set_tracking_uri(before)
