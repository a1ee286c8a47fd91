"""Interrupt the tiny experiment and look for losses: `python -m benchmarks.torture [--trials N] [--only KIND]`.

A reference run makes a snapshot of the project before each stage. A trial starts from one of them, runs the command of
`make repro`, disturbs it, repeats the same command until it ends well, and compares everything with the reference:

    kill     SIGKILL to all processes, at five random moments
    orphan   SIGKILL to the command alone: its children must end by themselves
    term     SIGTERM to the command
    disk     a full disk at a random write (left out where no tmpfs can be mounted)
    store    another process locks MLflow's store for 30 s
    prefect  SIGKILL to Prefect's server
    twice    a second command beside the first
"""

import argparse
import contextlib
import itertools
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from benchmarks.orchestration import copy_of_project, environment_of
from benchmarks.record import record, say
from rdmd.errors import reporting
from rdmd.files import sha256_of
from rdmd.pipeline.process_group import exit_on_signals

STAGES = ("teacher", "distill", "baselines", "evaluate", "register")
COMMAND = [sys.executable, "-m", "flows.server", "dvc", "repro"]
# Every process of a trial inherits this variable, whatever session it is in.
MARK = "TORTURE_TRIAL"
KILLS = 5
LOCK_SECONDS = 30.0
# `process_group` promises 13 s; a busy machine needs longer.
END_SECONDS = 60.0
COMMAND_SECONDS = 1800.0
# What may differ from the reference: records that name runs by random identifiers, caches of tools, measured times.
RANDOM_NAMES = (".git/", ".dvc/tmp", ".dvc/cache", ".prefect/", "mlflow/store/", ".cache/", "reports/data_docs")
TIMES = ("seconds_per_image", "train_seconds")

LOAD_VERSIONS = """
import mlflow, rdmd
from rdmd.pipeline.layout import use_local_tracking
use_local_tracking()
client = mlflow.MlflowClient()
for found in client.search_model_versions("name = 'rdmd-tiny'"):
    rdmd.Translator.from_pretrained(f"models:/rdmd-tiny/{found.version}")
    print("version", found.tags["sha256"], found.tags["lambda"])
print("aliases", *sorted(client.get_registered_model("rdmd-tiny").aliases))
"""


@dataclass
class Trial:
    """A copy of the project that is disturbed: its disturbances, and what was lost, each with a note."""

    path: Path
    kind: str
    events: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """The output of all commands of the trial."""
        return self.path.with_suffix(".log")

    def environment(self) -> dict[str, str]:
        """That of a user's shell, with the mark."""
        return environment_of(self.path) | {MARK: str(self.path)}

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the command of `make repro`."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*COMMAND, *more], cwd=self.path, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit status of a command; None, which is a loss, if it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(COMMAND_SECONDS)
        self.lost["command"] = f"it did not end within {COMMAND_SECONDS:.0f} s: {self.last_line()}"
        self.kill_all()
        return None

    def finish(self, *more: str) -> None:
        """Run the command to its end."""
        if status := self.wait(self.start(*more)):
            self.lost["command"] = f"the last command ended with {status}: {self.last_line()}"

    def last_line(self) -> str:
        """The last sentence for the user in the output so far, or else its last line."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return next((line for line in reversed(lines) if line.startswith("rdmd: ")), lines[-1] if lines else "")[:300]

    def processes(self) -> list[psutil.Process]:
        """The living processes of this trial."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.path) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_for_end(self, seconds: float = END_SECONDS) -> None:
        """Wait until all processes have ended; those that do not within some seconds are a loss, and killed."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            with contextlib.suppress(psutil.Error):
                self.lost["processes"] = f"still there after {seconds:.0f} s: {' '.join(process.cmdline())[-100:]}"
        self.kill_all()

    def kill_all(self) -> None:
        """SIGKILL to every process, also to those that others start meanwhile."""
        while alive := self.processes():
            for process in alive:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(alive, timeout=5)


# --- disturbances -------------------------------------------------------------------------------------------


def disturb(trial: Trial, rng: random.Random, seconds: float) -> None:
    """Disturb the command at random moments in the first `seconds`, as often and in the way that the kind says."""
    if trial.kind == "disk":
        room = rng.randrange(16 * 2**10, 6 * 2**20)
        _mount(trial.path, f"remount,size={shutil.disk_usage(trial.path).used + room}")
        status = trial.wait(trial.start())
        trial.events.append(f"{room // 2**10} KiB free, status {status}: {trial.last_line()}")
        trial.wait_for_end()
        _mount(trial.path, "remount,size=2g")
        return
    for _ in range(KILLS if trial.kind == "kill" else 1):
        process = trial.start()
        moment = rng.uniform(0.5, seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
            return
        trial.events.append(f"{_stage(trial)} +{moment:.1f} s")
        _strike(trial, process)
        if trial.kind not in ("kill", "orphan", "term"):
            trial.events[-1] += f", status {trial.wait(process)}: {trial.last_line()}"
        # Also of its children, in sessions of their own.
        trial.wait_for_end()
        process.wait()


def _strike(trial: Trial, process: subprocess.Popen[bytes]) -> None:
    match trial.kind:
        case "kill":
            trial.kill_all()
        case "orphan":
            process.kill()
        case "term":
            process.terminate()
        case "store" if (database := trial.path / "mlflow" / "store" / "mlflow.db").exists():
            with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as held:
                held.execute("BEGIN EXCLUSIVE")
                time.sleep(LOCK_SECONDS)
        case "prefect":
            for process in trial.processes():
                with contextlib.suppress(psutil.Error):
                    line = " ".join(process.cmdline())
                    # Not the `process_group` around it.
                    if "prefect server start" in line and "process_group" not in line:
                        process.kill()
        case "twice":
            trial.wait(trial.start())


def _stage(trial: Trial) -> str:
    """The stage that DVC ran last."""
    running = [line for line in trial.log.read_text(errors="replace").splitlines() if "Running stage" in line]
    return running[-1].split("'")[1] if running else "start"


# --- what must hold afterwards ------------------------------------------------------------------------------


def outcome_of(trial: Trial) -> dict[str, set[str]]:
    """What a project has at the end of the pipeline, without what differs in every run: a set of lines for each of
    weights, metrics, registry, and files."""
    root, names = trial.path, {}
    for path in trial.path.rglob("*"):
        name = path.relative_to(root).as_posix()
        temporary = path.name.endswith((".part", ".old", ".tmp"))
        if temporary or (path.is_file() and "__pycache__" not in name and not name.startswith(RANDOM_NAMES)):
            names[name] = path
    rows = json.loads((root / "reports" / "metrics.json").read_text(encoding="utf-8"))["rows"]
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD_VERSIONS], cwd=root, env=trial.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return {
        "weights": {f"{name} {sha256_of(path)}" for name, path in names.items() if path.suffix == ".safetensors"},
        "metrics": {json.dumps({key: value for key, value in row.items() if key not in TIMES}) for row in rows},
        "registry": set((loaded.stdout if loaded.returncode == 0 else loaded.stderr[-300:]).splitlines()),
        "files": set(names),
    }


def compare(trial: Trial, reference: dict[str, set[str]]) -> None:
    """Note in `trial.lost` what differs from the reference, and a traceback in place of a sentence."""
    output = trial.log.read_text(errors="replace")
    # A process that is killed by and by may have begun one.
    if "Traceback" in output and trial.kind not in ("kill", "orphan"):
        raised = [line for line in output.rpartition("Traceback")[2].splitlines()[1:] if line[:1].isalpha()]
        trial.lost["sentence"] = (raised or ["a traceback"])[0][:200]
    if "command" not in trial.lost:
        for part, found in outcome_of(trial).items():
            if found != reference[part]:
                new, gone = sorted(found - reference[part]), sorted(reference[part] - found)
                trial.lost[part] = f"new: {', '.join(new)[:300]}; gone: {', '.join(gone)[:300]}"


# --- the run ------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the trials, print a row for each and record their numbers."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    others = ("orphan", "term", "disk", "store", "prefect", "twice")
    parser.add_argument("--trials", type=int, default=40, help="default 40, every other one with five SIGKILLs")
    parser.add_argument("--only", choices=("kill", *others), help="this kind alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default 0)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no trial after so many minutes")
    parsed = parser.parse_args()
    # In turn, so that a run that ends early has tried every kind.
    kinds = [parsed.only] if parsed.only else [kind for other in others for kind in (other, "kill")]
    trials = torture(list(itertools.islice(itertools.cycle(kinds), parsed.trials)), parsed.seed, 60 * parsed.minutes)
    figures: Counter[str] = Counter()
    for trial in trials:
        figures.update({f"{trial.kind}_trials": 1, f"{trial.kind}_disturbances": len(trial.events)})
    for part in ("command", "sentence", "processes", "weights", "metrics", "registry", "files"):
        figures[f"lost_{part}"] = sum(part in trial.lost for trial in trials)
    record("torture", figures, torch.device("cpu"))


def torture(kinds: list[str], seed: int = 0, seconds: float = float("inf")) -> list[Trial]:
    """Run a trial of each of `kinds`, in order; start none after `seconds`. Prints a row for each.

    Needs git and the whole environment of the project.
    """
    begun, rng, done = time.monotonic(), random.Random(seed), []
    with (
        tempfile.TemporaryDirectory(prefix="rdmd-torture-") as name,
        copy_of_project("tiny") as project,
        _room(Path(name) / "trial", "disk" in kinds) as mounted,
    ):
        # In the place of the trials, since MLflow's store has absolute paths.
        work, reference = Path(name), Trial(Path(name) / "trial", "reference")
        _replace(project, reference.path)
        lasted: dict[str, float] = {}
        for stage in STAGES:
            shutil.copytree(reference.path, work / stage, symlinks=True)
            started = time.monotonic()
            reference.finish(stage)
            lasted[stage] = time.monotonic() - started
            say(f"reference: {stage}, {lasted[stage]:.0f} s")
        assert not reference.lost, reference.lost
        expected = outcome_of(reference)
        assert any("champion" in line for line in expected["registry"]), expected["registry"]
        for number, kind in enumerate(kinds, 1):
            if time.monotonic() - begun > seconds:
                break
            if kind == "disk" and not mounted:
                continue
            stage, trial = rng.choice(STAGES), Trial(reference.path, kind)
            trial.log.unlink(missing_ok=True)
            _replace(work / stage, trial.path)
            disturb(trial, rng, lasted[stage])
            trial.finish()
            trial.wait_for_end()
            compare(trial, expected)
            lost = "; ".join(f"{part} ({how})" for part, how in trial.lost.items()) or "nothing"
            print(f"{number:3}  {kind:8} from {stage:9} [{'; '.join(trial.events)}] lost: {lost}", flush=True)
            if trial.lost:
                say("\n".join(trial.log.read_text(errors="replace").splitlines()[-20:]))
            done.append(trial)
    return done


def _replace(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`; `target` itself may be a mount and stays."""
    for path in target.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


@contextlib.contextmanager
def _room(path: Path, wanted: bool) -> Iterator[bool]:
    """An empty folder; a tmpfs of 2 GiB, if it is wanted and can be mounted, which it tells."""
    path.mkdir()
    mounted = wanted and _mount(path, "size=2g")
    try:
        yield mounted
    finally:
        Trial(path, "end").kill_all()
        if mounted:
            subprocess.run(["umount", path], check=True)


def _mount(path: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    return shutil.which("mount") is not None and subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    exit_on_signals()
    with reporting(debug=False):
        main()
