"""What share of a whole pipeline is not its work: Prefect, DVC, MLflow, imports, process starts.

`python -m benchmarks.orchestration [EXPERIMENT]` runs `dvc repro` from nothing in a copy of the project, as `make
repro` does, then the same command with nothing left to do.
"""

import argparse
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
from benchmarks.timeline import KINDS, Span, read_cpu, read_spans, shares
from benchmarks.timing import Spread
from rdmd.errors import UserError, reporting

ROOT = Path(__file__).parents[1]
NOOPS = 5
# What would lead the copy's stages to another store, server or project.
_FOREIGN = ("MLFLOW_", "PREFECT_", "DVC_", "RDMD_")


def main() -> None:
    """Run the pipeline, and record what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("experiment", nargs="?", default="digits")
    experiment = parser.parse_args().experiment
    with copy_of_project(experiment) as project, tempfile.NamedTemporaryFile(suffix=".jsonl") as noted:
        say(f"dvc repro of {experiment} from nothing; it takes minutes")
        timeline = Path(noted.name)
        begun = time.time()
        _run(project, timeline, sys.executable, "-m", "flows.server", "dvc", "repro")
        ended = time.time()
        spans, cpu = read_spans(timeline), read_cpu(timeline)
        say("dvc repro with nothing to do")
        noop = Spread.of(tuple(_seconds(project, "dvc", "repro") for _ in range(NOOPS)))
        make = Spread.of(tuple(_seconds(project, "make", "-o", "venv", "repro") for _ in range(NOOPS)))
    figures = whole(spans, begun, ended)
    # Where other programs share the machine, this is the steadier one; two trainings at once count twice in it.
    figures |= {"orchestration_cpu_share": 1 - cpu.work / cpu.all, "work_cpu_seconds": cpu.work}
    figures |= noop.figures("noop_repro_seconds") | make.figures("noop_make_repro_seconds")
    # A training is given the threads that params.yaml says; the whole has the machine.
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    record("orchestration", figures, torch.device("cpu"))


def whole(spans: list[Span], begun: float, ended: float) -> dict[str, float]:
    """The share, and the seconds by what went on and by stage."""
    total = ended - begun
    found = shares(spans, begun, ended)
    figures = {"orchestration_share": 1 - found["work"] / total, "total_seconds": total}
    figures |= {f"{kind.replace(' ', '_')}_seconds": found[kind] for kind in KINDS}
    stages = [span for span in spans if span.kind == "stage start"]
    for number, stage in enumerate(stages):
        # `rdmd` serves several stages: they are told apart by their place.
        name = f"stage_{number + 1}_{stage.name}"
        inside = shares(spans, stage.begun, stage.ended)
        figures[f"{name}_seconds"] = stage.ended - stage.begun
        figures[f"{name}_work_seconds"] = inside["work"]
    return figures


@contextmanager
def copy_of_project(experiment: str) -> Iterator[Path]:
    """The tracked files as a repository of its own, with an experiment in params.yaml and nothing made yet."""
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


def _run(project: Path, timeline: Path | None, *command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    paths = [str(project)]
    if timeline is not None:
        environment["RDMD_TIMELINE"] = str(timeline)
        paths.append(str(ROOT / "benchmarks" / "site"))
    environment |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(
        command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        last = " ".join(done.stdout.strip().splitlines()[-3:])
        raise UserError(f"`{' '.join(command[-2:])}` failed in the copy of the project ({last}); mend that first.")


def _seconds(project: Path, *command: str) -> float:
    begun = time.perf_counter()
    _run(project, None, *command)
    return time.perf_counter() - begun


if __name__ == "__main__":
    with reporting(debug=False):
        main()
