"""Commands beside a Prefect server of their own: `python -m flows.server`, in processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.pipeline.layout import Layout
from tests.conftest import ROOT


def test_a_run_whose_server_dies_ends_with_a_sentence_and_a_checkpoint(points_project: Path):
    file = points_project / "params.yaml"
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings["teacher"] |= {"steps": 1_000_000}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for name in ("source", "target"):
        preprocess(config.load(), name, Layout().shards / name)
    dropped = {"MLFLOW_TRACKING_URI", "PREFECT_HOME", "DVC_ROOT", "DVC_STAGE"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    started = subprocess.Popen(
        [sys.executable, "-m", "flows.server", sys.executable, "-m", "flows.stages.training", "teacher"],
        env=environment | {"PYTHONPATH": str(points_project)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until(lambda: list(points_project.glob("runs/*/checkpoint.pt")), 300, "it does not train")
        below = psutil.Process(started.pid).children(recursive=True)
        (server,) = [one for one in below if one.cmdline()[1:5] == ["-m", "prefect", "server", "start"]]
        if sys.platform == "linux":
            # The flow waits for a process that trains, and needs no torch meanwhile.
            assert any(map(has_torch, below))
            flow = [one for one in below if one.cmdline()[1:3] == ["-m", "flows.stages.training"]]
            assert flow and not any(map(has_torch, flow))
        api = f"http://127.0.0.1:{server.cmdline()[-2]}/api"
        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            (run,) = client.read_flow_runs()
        assert run.name == "swissroll teacher"
        experiment, invocation = sorted(run.tags, reverse=True)
        assert experiment == "swissroll" and invocation.startswith("repro 20")
        (folder,) = points_project.glob("runs/*")
        server.kill()
        killed = time.time()
        # A training run writes its checkpoint within 15 s of the end of what started it.
        said, _ = started.communicate(timeout=20)
        assert started.returncode == 2, said
        assert said.splitlines()[-1].startswith("rdmd: Prefect's server ended by itself (exit status 137, log /"), said
        assert "Traceback" not in said
        assert (folder / "checkpoint.pt").stat().st_mtime >= killed
        assert not psutil.wait_procs(below, timeout=5)[1]
        runs = MlflowClient(f"sqlite:///{points_project}/mlflow/store/mlflow.db").search_runs(["1"])
        assert {run.info.run_name.split()[0]: run.info.status for run in runs} == {
            "sweep": "KILLED",
            "teacher": "KILLED",
        }
    finally:
        # What it has started ends with it.
        started.kill()


def test_a_second_run_waits_for_the_first(tmp_path: Path):
    waits = "touch begun; while [ ! -e go ]; do sleep 0.1; done; echo made > out"
    stage = {"cmd": waits, "outs": ["out"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"waits": stage}}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    dropped = {"MLFLOW_TRACKING_URI", "PREFECT_HOME", "DVC_ROOT", "DVC_STAGE"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    # No stage asks this server for anything; without the address, each run would start a server.
    environment |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": str(ROOT)}

    def repro() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", sys.executable, "-m", "dvc", "repro"],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    first = repro()
    until((tmp_path / "begun").exists, 60, "the first does not begin")
    second = repro()
    try:
        assert second.stdout is not None
        assert second.stdout.readline() == "waiting for another run in this project to end\n"
        assert first.poll() is None
        (tmp_path / "go").touch()
        assert first.wait(60) == 0
        assert "Data and pipelines are up to date." in second.communicate(timeout=60)[0]
        assert second.returncode == 0
    finally:
        first.kill()
        second.kill()


def has_torch(process: psutil.Process) -> bool:
    try:
        return any("libtorch" in file.path for file in process.memory_maps())
    except psutil.Error:  # it has just ended
        return False


def until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)
