"""Time of a whole pipeline, and of one with nothing to do.

`python -m benchmarks.orchestration [EXPERIMENT]` runs `dvc repro` from nothing in a copy of the project, as
`make repro` does, and then again with nothing to do.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.record import record, say
from benchmarks.timing import Spread
from rdmd.errors import UserError, reporting

ROOT = Path(__file__).parents[1]
NOOPS = 5
# These would lead the stages of the copy to another store, server or project.
FOREIGN = ("MLFLOW_", "PREFECT_", "DVC_", "RDMD_")


def main() -> None:
    """Run the pipeline and record the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("experiment", nargs="?", default="digits")
    experiment = parser.parse_args().experiment
    with copy_of_project(experiment) as project:
        say(f"dvc repro of {experiment} from nothing; it takes minutes")
        total = _seconds(project, sys.executable, "-m", "flows.server", "dvc", "repro")
        results = [json.loads(file.read_text(encoding="utf-8")) for file in project.glob("runs/*/result.json")]
        say("dvc repro with nothing to do")
        noop = Spread.of(tuple(_seconds(project, "dvc", "repro") for _ in range(NOOPS)))
        make = Spread.of(tuple(_seconds(project, "make", "-o", "venv", "repro") for _ in range(NOOPS)))
    # Parallel trainings count once each, so this is not a share of the total.
    figures = {"total_seconds": total, "training_seconds": sum(result["train_seconds"] for result in results)}
    figures |= noop.figures("noop_repro_seconds") | make.figures("noop_make_repro_seconds")
    # Record the whole machine, not the threads of a training.
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    record("orchestration", figures, torch.device("cpu"))


@contextmanager
def copy_of_project(experiment: str) -> Iterator[Path]:
    """A copy of the tracked files as a new repository, with an experiment in params.yaml and no outputs."""
    with tempfile.TemporaryDirectory(prefix="rdmd-bench-") as name:
        project = Path(name)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
        for file in filter(None, listed.split("\0")):
            if (ROOT / file).exists():
                (project / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, project / file)
        (project / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(project / "reports", ignore_errors=True)
        shutil.copy2(ROOT / "experiments" / f"{experiment}.yaml", project / "params.yaml")
        git = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A copy"]):
            subprocess.run([*git, *command], cwd=project, check=True)
        yield project


def environment_of(project: Path) -> dict[str, str]:
    """That of a user's shell, for a command in a copy of the project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PYTHONPATH": str(project), "PATH": path, "DVC_NO_ANALYTICS": "1"}


def _run(project: Path, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=project,
        env=environment_of(project),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        last = " ".join(done.stdout.strip().splitlines()[-3:])
        raise UserError(f"`{' '.join(command[-2:])}` failed in the copy of the project ({last}); mend that first.")


def _seconds(project: Path, *command: str) -> float:
    begun = time.perf_counter()
    _run(project, *command)
    return time.perf_counter() - begun


if __name__ == "__main__":
    with reporting(debug=False):
        main()
