"""Interrupt the tiny experiment and look for losses: `python -m benchmarks.torture [--kills N] [--only KIND]`.

A reference run in a clone makes a snapshot before each stage. A trial starts from one of them, runs the command of
`make repro`, disturbs it, repeats the same command until it ends well, and compares everything with the reference:

    kill     SIGKILL to all processes at random moments, several times in a trial
    orphan   SIGKILL to the command alone: its children must end by themselves
    term     SIGTERM to the command
    disk     a full disk at a random write (needs the right to mount a tmpfs)
    store    another process locks MLflow's store for 30 s
    prefect  SIGKILL to Prefect's server
    twice    a second command beside the first
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from benchmarks.orchestration import FOREIGN, copy_of_project
from benchmarks.record import record, say
from rdmd.errors import reporting
from rdmd.files import sha256_of
from rdmd.pipeline.process_group import exit_on_signals

STAGES = ("teacher", "distill", "baselines", "evaluate", "register")
COMMAND = [sys.executable, "-m", "flows.server", "dvc", "repro"]
# Every process of a trial inherits this variable, whatever session it is in.
MARK = "TORTURE_TRIAL"
KILLS_PER_TRIAL = 5
LOCK_SECONDS = 30.0
# `process_group` promises 13 s; a busy machine needs longer.
END_SECONDS = 40.0
COMMAND_SECONDS = 900.0
# What may differ from the reference: records that name runs by random identifiers, and caches of tools.
RANDOM_NAMES = (".git/", ".dvc/tmp", ".dvc/cache", ".prefect/", "mlflow/store/", ".cache/", "reports/data_docs")
# Measured times differ in every run.
TIMES = ("seconds_per_image", "train_seconds")
LOSSES = ("command", "sentence", "weights", "metrics", "registry", "files", "processes")

LOAD_VERSIONS = """
import json, mlflow, rdmd
from rdmd.pipeline.layout import use_local_tracking
use_local_tracking()
client = mlflow.MlflowClient()
found = [(v.tags["sha256"], v.tags["lambda"], v.version) for v in client.search_model_versions("name = 'rdmd-tiny'")]
for _, _, version in found:
    rdmd.Translator.from_pretrained(f"models:/rdmd-tiny/{version}")
aliases = sorted(client.get_registered_model("rdmd-tiny").aliases)
print(json.dumps([sorted(pair[:2] for pair in found), aliases]))
"""


@dataclass
class Trial:
    """A clone that is disturbed, and what happened to it."""

    path: Path
    rng: random.Random
    kind: str
    kills: int = 1
    longest: float = 0.0
    """Seconds within which a disturbance comes: those of the first stage in the reference run."""
    disturbances: int = 0
    events: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """That of a user's shell, with the mark."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return kept | {
            MARK: str(self.path), "PYTHONPATH": str(self.path), "DVC_NO_ANALYTICS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the command of `make repro`; its output goes to a file beside the clone."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*COMMAND, *more], cwd=self.path, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )

    @property
    def log(self) -> Path:
        """The output of all commands of the trial."""
        return self.path.with_suffix(".log")

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
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return next((line for line in reversed(lines) if line.startswith("rdmd: ")), lines[-1] if lines else "")[:300]

    def stage(self) -> str:
        """The stage that DVC ran last."""
        running = [line for line in self.log.read_text(errors="replace").splitlines() if "Running stage" in line]
        return running[-1].split("'")[1] if running else "start"

    def processes(self) -> list[psutil.Process]:
        """The living processes of this trial."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.path) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_for_end(self, seconds: float) -> None:
        """Wait until all processes have ended; those that do not within some seconds are a loss, and killed."""
        deadline = time.monotonic() + seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        left = []
        for one in self.processes():
            with contextlib.suppress(psutil.Error):
                left.append(" ".join(one.cmdline())[-80:])
        self.kill_all()
        if left:
            self.lost["processes"] = f"{len(left)} still there after {seconds:.0f} s: {'; '.join(left)}"

    def kill_all(self) -> None:
        """SIGKILL to every process, also to those that others start meanwhile."""
        while alive := self.processes():
            for one in alive:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(alive, timeout=5)

    def sleep(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for a random moment; False if the process ended before it."""
        moment = self.rng.uniform(0.5, self.longest)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
            return False
        self.disturbances += 1
        self.events.append(f"{self.stage()} +{moment:.1f} s")
        return True


# --- disturbances -------------------------------------------------------------------------------------------


def interrupt(trial: Trial) -> None:
    """End the command at several random moments, each time with all its processes."""
    for _ in range(trial.kills):
        process = trial.start()
        if not trial.sleep(process):
            break
        match trial.kind:
            case "kill":
                trial.kill_all()
            case "orphan":
                process.kill()
            case "term":
                process.terminate()
        # Also of its children, in sessions of their own.
        trial.wait_for_end(END_SECONDS)
        process.wait()


def disk(trial: Trial) -> None:
    """Leave a random part of the space that the rest of the run needs, and make room after the failure."""
    room = trial.rng.randrange(16 * 2**10, 6 * 2**20)
    used = shutil.disk_usage(trial.path).used
    _remount(trial.path, used + room)
    process = trial.start()
    status = trial.wait(process)
    trial.disturbances += 1
    trial.events.append(f"{room // 2**10} KiB free, {trial.stage()}, status {status}: {trial.last_line()}")
    trial.wait_for_end(END_SECONDS)
    _remount(trial.path, 2**31)


def store(trial: Trial) -> None:
    """Lock MLflow's store; the command waits, records later, or says that it is locked."""
    process = trial.start()
    if trial.sleep(process):
        database = trial.path / "mlflow" / "store" / "mlflow.db"
        if database.exists():
            with contextlib.closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as held:
                held.execute("BEGIN EXCLUSIVE")
                time.sleep(LOCK_SECONDS)
                held.execute("ROLLBACK")
    status = trial.wait(process)
    trial.events.append(f"status {status}: {trial.last_line()}")


def prefect(trial: Trial) -> None:
    """SIGKILL to Prefect's server; the command goes on or ends soon."""
    process = trial.start()
    if trial.sleep(process):
        for one in trial.processes():
            with contextlib.suppress(psutil.Error):
                line = " ".join(one.cmdline())
                # Not the `process_group` around it.
                if "prefect server start" in line and "process_group" not in line:
                    one.kill()
        begun = time.monotonic()
        status = trial.wait(process)
        trial.events.append(f"ended after {time.monotonic() - begun:.0f} s, status {status}: {trial.last_line()}")
    trial.wait_for_end(END_SECONDS)


def twice(trial: Trial) -> None:
    """A second command at a random moment; each ends well or says in a sentence why not."""
    first = trial.start()
    if trial.sleep(first):
        second = trial.start()
        statuses = [trial.wait(process) for process in (second, first)]
        trial.events.append(f"status {statuses[1]} and {statuses[0]}")


KINDS: dict[str, Callable[[Trial], None]] = {
    "kill": interrupt, "orphan": interrupt, "term": interrupt, "disk": disk, "store": store, "prefect": prefect,
    "twice": twice,
}  # fmt: skip


# --- what must hold afterwards ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a project has at the end of the pipeline."""

    weights: dict[str, str]
    metrics: str
    registry: str
    files: frozenset[str]


def outcome_of(trial: Trial) -> Outcome:
    """Read it from a clone, without the times and the identifiers that differ in every run."""
    root = trial.path
    weights = {one.relative_to(root).as_posix(): sha256_of(one) for one in root.glob("models/**/*.safetensors")}
    weights |= {one.relative_to(root).as_posix(): sha256_of(one) for one in root.glob("runs/*/model.safetensors")}
    metrics = json.loads((root / "reports" / "metrics.json").read_text(encoding="utf-8"))
    for row in metrics["rows"]:
        for name in TIMES:
            row.pop(name, None)
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD_VERSIONS], cwd=root, env=trial.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    registry = loaded.stdout.strip() or (loaded.stderr.strip().splitlines() or ["no answer"])[-1]
    return Outcome(weights, json.dumps(metrics), registry, frozenset(_files(root)))


def _files(root: Path) -> Iterator[str]:
    """Every file whose name does not depend on chance, and every temporary file."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        temporary = path.name.endswith((".part", ".old", ".tmp"))
        if temporary or (path.is_file() and "__pycache__" not in name and not name.startswith(RANDOM_NAMES)):
            yield name


def compare(trial: Trial, reference: Outcome) -> None:
    """Note in `trial.lost` what differs from the reference, and a traceback in place of a sentence."""
    output = trial.log.read_text(encoding="utf-8", errors="replace")
    # A process that is killed by and by may have begun one.
    if "Traceback" in output and trial.kind not in ("kill", "orphan"):
        raised = [line for line in output.rpartition("Traceback")[2].splitlines()[1:] if line[:1].isalpha()]
        trial.lost["sentence"] = (raised or ["a traceback"])[0][:200]
    if "command" in trial.lost:
        return
    found = outcome_of(trial)
    differ = sorted(name for name, digest in reference.weights.items() if found.weights.get(name) != digest)
    if differ or set(found.weights) != set(reference.weights):
        trial.lost["weights"] = ", ".join(differ) or f"{len(found.weights)} files, not {len(reference.weights)}"
    if found.metrics != reference.metrics:
        trial.lost["metrics"] = "reports/metrics.json differs"
    if found.registry != reference.registry:
        trial.lost["registry"] = found.registry[:300]
    left, gone = sorted(found.files - reference.files), sorted(reference.files - found.files)
    if left or gone:
        trial.lost["files"] = f"left: {', '.join(left[:5]) or 'none'}; gone: {', '.join(gone[:5]) or 'none'}"


# --- the run ------------------------------------------------------------------------------------------------


def main() -> None:
    """Make the reference, run the trials, print a row for each and record their numbers."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="how many SIGKILLs in all (default 100)")
    parser.add_argument("--each", type=int, default=3, help="how many trials of every other kind (default 3)")
    parser.add_argument("--only", choices=KINDS, help="this kind alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default 0)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no trial after so many minutes")
    given = parser.parse_args()
    counts = {"kill": -(-given.kills // KILLS_PER_TRIAL)} | dict.fromkeys(
        [one for one in KINDS if one != "kill"], given.each
    )
    # In turn, so that a run that ends early has tried every kind.
    wanted = sorted((i / counts[kind], kind) for kind in counts for i in range(counts[kind]))
    kinds = [kind for _, kind in wanted if given.only in (None, kind)]
    kills = min(given.kills, KILLS_PER_TRIAL)
    trials = torture(kinds, kills, random.Random(given.seed), 60 * given.minutes)
    figures: Counter[str] = Counter()
    for trial in trials:
        figures[f"{trial.kind}_trials"] += 1
        figures[f"{trial.kind}_disturbances"] += trial.disturbances
        for loss in LOSSES:
            figures[f"{trial.kind}_lost_{loss}"] += loss in trial.lost
    record("torture", figures, torch.device("cpu"))


def torture(kinds: list[str], kills: int, rng: random.Random, seconds: float = float("inf")) -> list[Trial]:
    """Run a trial of each of `kinds`, in order, with `kills` kills in each; start none after `seconds`.

    Prints a row for each. Needs git and the whole environment of the project.
    """
    begun = time.monotonic()
    done = []
    with (
        tempfile.TemporaryDirectory(prefix="rdmd-torture-") as name,
        copy_of_project("tiny") as project,
        _mounted(Path(name) / "trial", "disk" in kinds) as mounted,
    ):
        work = Path(name)
        reference = Trial(work / "trial", rng, "reference")
        # In the place of the trials, since MLflow's store has absolute paths.
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
        assert expected.registry.startswith("[["), expected.registry
        for number, kind in enumerate(kinds, 1):
            if time.monotonic() - begun > seconds:
                break
            if kind == "disk" and not mounted:
                say("disk: left out, since no tmpfs can be mounted here")
                continue
            stage = rng.choice(STAGES)
            trial = Trial(reference.path, rng, kind, kills, lasted[stage])
            trial.log.unlink(missing_ok=True)
            _replace(work / stage, trial.path)
            KINDS[kind](trial)
            trial.finish()
            trial.wait_for_end(END_SECONDS)
            compare(trial, expected)
            lost = "; ".join(f"{what} ({how})" for what, how in trial.lost.items()) or "nothing"
            print(f"{number:3}  {kind:8} from {stage:9} [{', '.join(trial.events)}] lost: {lost}", flush=True)
            if trial.lost:
                say("\n".join(trial.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]))
            done.append(trial)
    return done


def _replace(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`; `target` itself may be a mount and stays."""
    target.mkdir(exist_ok=True)
    for one in target.iterdir():
        shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


@contextlib.contextmanager
def _mounted(path: Path, wanted: bool) -> Iterator[bool]:
    """A tmpfs of 2 GiB, if it is wanted; False where none can be mounted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(path)]
    mounted = wanted and bool(shutil.which("mount")) and subprocess.run(command, check=False).returncode == 0
    try:
        yield mounted
    finally:
        Trial(path, random.Random(), "end").kill_all()
        if mounted:
            subprocess.run(["umount", path], check=True)


def _remount(path: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True)


if __name__ == "__main__":
    exit_on_signals()
    with reporting(debug=False):
        main()
