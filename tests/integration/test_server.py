"""Commands beside a Prefect server of their own: `python -m flows.server`, in processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

from rdmd import config
from rdmd.data.preprocess import preprocess
from rdmd.pipeline.layout import Layout


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
        [sys.executable, "-m", "flows.server", sys.executable, "-m", "flows.stages.teacher"],
        env=environment | {"PYTHONPATH": str(points_project)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until(lambda: list(points_project.glob("runs/*/checkpoint.pt")), 120, "it does not train")
        below = psutil.Process(started.pid).children(recursive=True)
        (server,) = [one for one in below if one.cmdline()[1:5] == ["-m", "prefect", "server", "start"]]
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
    finally:
        # What it has started ends with it.
        started.kill()


def until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)
