"""`rdmd clean`: what is in use stays, and a month of experiments does not fill the disk."""

import json
import os
import sqlite3
import time
from pathlib import Path

import joblib
import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

import rdmd
from rdmd import cli
from rdmd.files import sha256_of
from rdmd.pipeline.clean import DAY, Unused, delete, find_unused
from rdmd.pipeline.layout import Layout
from rdmd.training.run_folder import Result, RunFolder
from tests.conftest import fresh_store

SIZE = 10_000


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    # As the command sets it, for which the test then clears it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow/store/mlflow.db")
    return tmp_path


def make_run(name: str, age: float = 30) -> RunFolder:
    """A finished run that was last used `age` days ago."""
    folder = RunFolder(Path("runs") / name)
    folder.path.mkdir(parents=True)
    folder.run_file.write_text("{}")
    folder.weights.write_bytes(b"w" * SIZE)
    folder.checkpoint.write_bytes(b"c" * SIZE)
    result = Result(
        steps=1, sha256=sha256_of(folder.weights), train_seconds=1, device="cpu", peak_memory_mib=1, parameters=1
    )
    folder.result_file.write_text(result.model_dump_json())
    make_older(folder.path, age)
    return folder


def make_older(folder: Path, days: float) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time(), path.stat().st_mtime - days * DAY))


def make_model(folder: str, run: str) -> None:
    Path(folder).mkdir(parents=True)
    Path(folder, "model.json").write_text(json.dumps({"run": run}))


def names(unused: list[Unused], kind: str) -> list[str]:
    return sorted(one.path.name for one in unused if one.kind == kind)


def test_what_a_model_or_the_lock_or_the_registry_names_stays():
    for name in ("model", "locked", "registered", "recent", "unused"):
        make_run(name, age=2 if name == "recent" else 30)
    Path("runs/notes").mkdir()
    make_older(Path("runs/notes"), 30)
    make_model("models/teacher", "model")
    files = Path(".dvc/cache/files/md5")
    for digest, content in {
        "aa1.dir": json.dumps([{"md5": "bb2", "relpath": "lambda-0.1/model.json"}, {"md5": "cc3", "relpath": "x"}]),
        "bb2": json.dumps({"run": "locked"}),
    }.items():
        (files / digest[:2]).mkdir(parents=True)
        (files / digest[:2] / digest[2:]).write_text(content)
    Path("dvc.lock").write_text("stages: {distill: {outs: [{path: models/generators, md5: aa1.dir}, {md5: dd4}]}}")
    client = MlflowClient(fresh_store(Path("mlflow/store/mlflow.db")))
    run = client.create_run("0", tags={"rdmd.run": "registered"})
    client.create_registered_model("rdmd-tiny")
    client.create_model_version("rdmd-tiny", "file:///nowhere", run.info.run_id)

    found = find_unused(Layout(), 7)
    assert names(found, "run") == ["unused"]
    assert [one.path.parent.name for one in found if one.kind == "checkpoint"] == ["locked", "model", "registered"]
    delete(found)
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "locked",
        "model",
        "notes",
        "recent",
        "registered",
    ]
    assert find_unused(Layout(), 7) == []


def test_a_run_in_training_stays():
    run = make_run("trained-now")
    with run.locked():
        delete([Unused("run", run.path, 0)])
    assert run.weights.exists()


def test_a_real_run_is_used_again_without_its_checkpoint(capsys: pytest.CaptureFixture[str]):
    def train(seed: int) -> rdmd.Teacher:
        return rdmd.train_teacher(torch.zeros(9, 2), steps=2, batch=3, seed=seed, folder="runs", progress=False)

    train(0).save_pretrained("models/teacher")
    train(1)
    for path in Path("runs").iterdir():
        make_older(path, 8)
    for arguments, left in ((["clean"], 2), (["clean", "--yes"], 1)):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert len(list(Path("runs").iterdir())) == left
    said = capsys.readouterr().out
    assert "1 runs to which no model" in said and "1 checkpoints of finished runs" in said and "freed" in said
    (run,) = Path("runs").iterdir()
    assert not RunFolder(run).checkpoint.exists()
    before = RunFolder(run).result_file.stat().st_mtime
    assert train(0).card.run == run.name
    assert RunFolder(run).result_file.stat().st_mtime == before


def test_a_month_of_experiments_does_not_fill_the_disk():
    sizes = []
    for day in range(30):
        for path in Path("runs").glob("*"):
            make_older(path, 1)
        for i in range(3):
            make_run(f"day-{day}-{i}", age=0)
        if day == 0:
            make_model("models/teacher", "day-0-0")
        delete(find_unused(Layout(), 7))
        sizes.append(sum(file.stat().st_size for file in Path("runs").rglob("*") if file.is_file()))
    # A week of runs and that of the model, the latter without its checkpoint.
    assert sizes[-1] == sizes[10] < (7 + 1) * 3 * 2.1 * SIZE
    assert Path("runs/day-0-0/model.safetensors").exists()


def test_old_features_and_runs_deleted_in_mlflow_go(project: Path):
    memory = joblib.Memory(Layout().feature_cache, verbose=0)
    double = memory.cache(np.multiply)
    double(np.ones(1000), 2)
    assert names(find_unused(Layout(), 7), "features") == []
    assert len(names(find_unused(Layout(), 0), "features")) == 1

    store = project / "mlflow" / "store"
    client = MlflowClient(fresh_store(store / "mlflow.db"))
    place = client.create_experiment("rdmd/tiny", artifact_location=(store / "artifacts").as_uri())
    runs = [client.create_run(place).info.run_id for _ in range(4)]
    for run in runs:
        (project / "image.png").write_bytes(b"i" * SIZE)
        client.log_artifact(run, str(project / "image.png"))
    long_ago, recently, present, registered = runs
    client.create_registered_model("rdmd-tiny")
    client.create_model_version("rdmd-tiny", "file:///nowhere", registered)
    for run in (long_ago, recently, registered):
        client.delete_run(run)
    with sqlite3.connect(store / "mlflow.db") as database:
        change = "UPDATE runs SET deleted_time = deleted_time - ? WHERE run_uuid IN (?, ?)"
        database.execute(change, (8 * DAY * 1000, long_ago, registered))
    found = find_unused(Layout(), 7)
    assert [(one.kind, one.path.parent.name, one.size) for one in found] == [("record", long_ago, SIZE)]
    delete([*found, *(one for one in find_unused(Layout(), 0) if one.kind == "features")])
    assert names(find_unused(Layout(), 0), "features") == []
    left = {path.parents[1].name for path in (store / "artifacts").rglob("image.png")}
    assert left == {recently, present, registered}
    with pytest.raises(mlflow.MlflowException):
        client.get_run(long_ago)


@pytest.mark.parametrize("days", ["-1", "nan"])
def test_days_below_zero_are_refused(days: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["clean", "--days", days])
    assert ended.value.code == 2
    assert "--days is" in capsys.readouterr().err
