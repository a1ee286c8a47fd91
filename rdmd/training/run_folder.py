"""What a training process and its launcher agree on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from rdmd import config
from rdmd.errors import UserError
from rdmd.files import sha256_of, write_text
from rdmd.training.run_config import TrainingRun, fingerprint, parse_run

# Exit status of a run that stopped on request and left a checkpoint.
EXIT_STOPPED = 3
# Set by the launcher, which holds the other end of standard input: its end means that the launcher is gone.
WATCH_STDIN = "RDMD_STOP_WHEN_STDIN_CLOSES"
# The remedy for a run that needs more memory than the machine has.
LESS_MEMORY = "lower `batch` or launch.parallel in params.yaml, or raise launch.accumulate"


class Result(config.Section):
    """`result.json`, written last: its presence says that the run is finished."""

    steps: int
    sha256: str
    train_seconds: float
    device: str
    peak_memory_mib: float
    parameters: int
    # The step of the weights where the run is evaluated, which is not the last one where it kept its best.
    kept_step: int | None = None


@dataclass(frozen=True)
class Point:
    """One line of a run's curves: means over the steps since the last line."""

    step: int
    values: dict[str, float]


@dataclass
class RunFolder:
    """Paths and state of one run."""

    path: Path

    def __post_init__(self) -> None:
        self.fingerprint = self.path.name
        self.run_file = self.path / "run.json"
        self.result_file = self.path / "result.json"
        self.checkpoint = self.path / "checkpoint.pt"
        self.weights = self.path / "model.safetensors"
        # Those of the best evaluation, where the model has those of the last step; and the other way round.
        self.best_weights = self.path / "best.safetensors"
        self.last_weights = self.path / "last.safetensors"
        self.curves_file = self.path / "curves.jsonl"
        self.samples = self.path / "samples"
        self.log = self.path / "log.txt"
        # Why the last start of the run failed, in one sentence; absent where it did not.
        self.error_file = self.path / "error.txt"

    @staticmethod
    def prepare(runs: Path, run: TrainingRun) -> "RunFolder":
        """The folder of `run` below `runs`, made if need be, with `run.json` saying where its inputs lie now."""
        folder = RunFolder(runs / fingerprint(run))
        write_text(folder.run_file, run.model_dump_json(indent=2) + "\n")
        return folder

    def read_run(self) -> TrainingRun:
        """The run as it was planned."""
        return parse_run(self.run_file.read_text(encoding="utf-8"))

    def result(self) -> Result | None:
        """The result of a finished run whose weights are still those it wrote; None if it must (still) run."""
        if not self.result_file.exists():
            return None
        result = Result.model_validate_json(self.result_file.read_text(encoding="utf-8"))
        return result if self.weights.exists() and sha256_of(self.weights) == result.sha256 else None

    def curves(self) -> list[Point]:
        """What has been logged so far; a last line cut short by a crash is left out."""
        if not self.curves_file.exists():
            return []
        lines = self.curves_file.read_text(encoding="utf-8").split("\n")[:-1]
        points = []
        for line in lines:
            values = json.loads(line)
            points.append(Point(step=values.pop("step"), values=values))
        return points

    def forget_curves_after(self, step: int) -> None:
        """Drop what a crashed run logged past its last checkpoint: it will be logged again."""
        kept = [point for point in self.curves() if point.step <= step]
        write_text(self.curves_file, "".join(curve_line(point) for point in kept))

    @contextmanager
    def locked(self, seconds: float = 0.0) -> Iterator[None]:
        """Hold the run for this process. Raises UserError if another process trains it and goes on for `seconds`.

        It is the system's lock, not a file that says so: the kernel releases it when the process ends, whatever ends
        it. On NFS the server holds it, and releases it when a lost machine's lease is over.
        """
        lock = FileLock(self.path / "lock", poll_interval=0.5)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise UserError(
                f"{self.path} is being trained by another process; wait for it or stop it, then repeat the command."
            ) from None
        try:
            yield
        finally:
            lock.release()


def curve_line(point: Point) -> str:
    """One line of `curves.jsonl`."""
    return json.dumps({"step": point.step, **point.values}) + "\n"
