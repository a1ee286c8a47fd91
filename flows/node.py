"""What runs on a node of a cluster: Prefect tasks that fetch their inputs, work in a folder of the node's own, and send
back what they made. Nothing else is shared with the driver, no disk either."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ray
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.cargo import Cargo, task_folder
from flows.depot import read_files, write_files
from flows.node_metrics import NodeMetrics, samples_file
from rdmd import config
from rdmd.errors import Interrupted, UserError
from rdmd.evaluation.evaluator import EvaluationTask
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.evaluation import Evaluated, evaluate_one, evaluation_task
from rdmd.pipeline.launch import Slot, TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.portable import relocated
from rdmd.pipeline.translators import translators
from rdmd.training.folder import RunFolder
from rdmd.training.spec import BASELINE_CODE, TRAINING_CODE, TrainingRun, training_code_digest

BEAT_SECONDS = 1.0
# Checkpoints may be large: the next is sent no sooner than ten times as long after the last as that one took.
REST = 10.0


@dataclass(frozen=True)
class TrainingJob:
    """One training run: its fingerprint, the run with relative paths, its inputs, its share of a node, and the folder
    that the driver calls it by."""

    fingerprint: str
    run: TrainingRun
    cargo: Cargo
    slot: Slot
    home: Path
    depot: "ray.actor.ActorHandle"


class EvaluationJob:
    """An evaluation's settings with relative paths and its inputs. Equal to none but itself and its copies."""

    def __init__(self, key: str, settings: config.Settings, cargo: Cargo, code: str) -> None:
        self.key, self.settings, self.cargo, self.code = key, settings, cargo, code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EvaluationJob) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


def evaluation_code() -> str:
    """A digest of the code behind an evaluation's numbers."""
    return training_code_digest((*TRAINING_CODE, *BASELINE_CODE, "evaluation"))


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name} on the cluster")
def train_there(name: str, job: TrainingJob) -> None:
    """Train one run on this node, from what earlier attempts left in the depot, and post to it all that comes of it."""
    so_far = ray.get(job.depot.begin.remote(job.fingerprint))
    if so_far is None:
        raise Interrupted(f"{job.home} was stopped before it began; repeat the same command")
    with task_folder() as root:
        job.cargo.unpack(root)
        folder = RunFolder.prepare(root / "runs", relocated(job.run, lambda _, read: root / read.path))
        if folder.fingerprint != job.fingerprint:
            raise _other_code()
        write_files(folder.path, so_far)
        processes = TrainingProcesses()
        with _posting(job, folder, processes):
            try:
                processes.train(folder, job.slot, lambda points: None)
            except (UserError, Interrupted) as error:
                # The folder will be gone; what it holds lies where the driver keeps the run.
                raise type(error)(str(error).replace(str(folder.path), str(job.home))) from None


@contextlib.contextmanager
def _posting(job: TrainingJob, folder: RunFolder, processes: TrainingProcesses) -> Iterator[None]:
    """Post what a run makes while the block runs, and the rest at its end; stop the run when the depot says so."""
    sender, over = _Sender(job, folder), threading.Event()

    def beat() -> None:
        try:
            while not over.wait(BEAT_SECONDS):
                if sender.send_progress():
                    processes.stop_all()
        except ray.exceptions.RayError:
            # The driver is gone, and the depot with it.
            processes.stop_all()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sender.send_rest()


class _Sender:
    """Posts the files of a run to the depot, each when it has changed."""

    def __init__(self, job: TrainingJob, folder: RunFolder) -> None:
        self._job, self._folder = job, folder
        self._metrics = NodeMetrics(folder, ray.util.get_node_ip_address())
        self._sent: dict[str, int] = {}
        self._next_checkpoint = 0.0

    def send_progress(self) -> bool:
        """Send checkpoint, curves, pictures, log and what the node does; says whether the run is to stop."""
        self._metrics.sample_if_due()
        # The checkpoint first: the curves that it goes with reach at least as far.
        begun = time.monotonic()
        if begun >= self._next_checkpoint and self._send([self._folder.checkpoint]) is not None:
            self._next_checkpoint = time.monotonic() + REST * (time.monotonic() - begun)
        stop = self._send(self._followed())
        return bool(self._post({}) if stop is None else stop)

    def send_rest(self) -> None:
        """Send everything that has not been sent, the result last; a finished run needs no checkpoint."""
        folder = self._folder
        finished = [folder.weights, folder.fake_weights, folder.result_file]
        self._send(finished[:2] if folder.result_file.exists() else [folder.checkpoint])
        self._send(self._followed())
        self._send(finished[2:])

    def _followed(self) -> list[Path]:
        folder = self._folder
        return [folder.curves_file, folder.log, samples_file(folder), *sorted(folder.samples.glob("*.png"))]

    def _send(self, files: list[Path]) -> bool | None:
        """Post those that have changed; None if none has."""
        changed = {}
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                changed[str(file.relative_to(self._folder.path))] = file.stat().st_mtime_ns
        changed = {name: time for name, time in changed.items() if self._sent.get(name) != time}
        if not changed:
            return None
        self._sent |= changed
        return self._post(read_files(self._folder.path, list(changed)))

    def _post(self, files: dict[str, bytes]) -> bool:
        return bool(ray.get(self._job.depot.post.remote(self._job.fingerprint, files)))


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name} on the cluster")
def measure_there(name: str, index: int, job: EvaluationJob) -> Evaluated:
    """Translate the test sources on this node with one method, by its place among all of them, and measure it."""
    if job.code != evaluation_code():
        raise _other_code()
    judged_on, every = _loaded(job)
    return evaluate_one(every[index], judged_on)


@lru_cache(maxsize=1)
def _loaded(job: EvaluationJob) -> tuple[EvaluationTask, list[NamedTranslator]]:
    """What methods are judged on, and the methods: kept from one task to the next of a process."""
    with task_folder() as root:
        job.cargo.unpack(root)
        settings, layout = _below(root, job.settings), Layout(root)
        judged_on = evaluation_task(settings, layout)
        return judged_on, list(translators(settings, layout, judged_on.device))


def _below(root: Path, settings: config.Settings) -> config.Settings:
    """Settings whose one path that is not of the layout is taken from `root`."""
    features = settings.evaluate.features
    if not isinstance(features, config.InceptionFeatures) or features.weights is None:
        return settings
    moved = features.model_copy(update={"weights": root / features.weights})
    return settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"features": moved})})


def _other_code() -> UserError:
    return UserError(f"the node {ray.util.get_node_ip_address()} has other code of rdmd than this machine; bring every "
                     "checkout to the same commit and repeat the command.")
