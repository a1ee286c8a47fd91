"""Training on the nodes of a cluster, as `TrainingProcesses` does on this machine: the same folders under runs/ come of
it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import ray

from flows.cluster import Cluster, cluster_slot
from flows.depot import read_files, write_files
from flows.node import TrainingJob, train_there
from flows.node_metrics import samples_file
from rdmd import config
from rdmd.errors import Interrupted, UserError
from rdmd.pipeline.launch import Slot
from rdmd.pipeline.portable import portable_run
from rdmd.training.folder import Point, Result, RunFolder
from rdmd.training.spec import run_name

POLL_SECONDS = 0.5
# A node takes a beat to hear of a stop, and its training a step and a checkpoint.
STOP_SECONDS = 8.0


class ClusterSlots:
    """A slot for every run: what is free on which node is Ray's to know."""

    def __init__(self, launch: config.Launch, runner: config.RayRunner) -> None:
        self._slot = cluster_slot(launch, runner)

    @contextlib.contextmanager
    def lend(self) -> Iterator[Slot]:
        """A task's share of whichever node it comes to, at once."""
        yield self._slot


class ClusterTraining:
    """Trains runs on a cluster. Safe to use from several threads, one run each."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._depot = cluster, cluster.depot
        self._stopping = threading.Event()
        self._active = 0
        self._changed = threading.Condition()

    def train(self, folder: RunFolder, slot: Slot, follow: Callable[[list[Point]], None]) -> Result:
        """As `Trainer.train`. Checkpoint, curves and pictures come back into the run's folder while it trains."""
        done = folder.result()
        if done is not None:
            follow(folder.curves())
            return done
        if self._stopping.is_set():
            raise _interrupted(folder)
        with folder.locked(), self._counted():
            run = folder.fingerprint
            try:
                self._train(folder, slot, follow)
            finally:
                self._depot.close.remote(run)
        result = folder.result()
        if result is None:
            raise UserError(f"{folder.path} came back from the cluster incomplete; repeat the command to go on.")
        return result

    def stop_all(self) -> None:
        """As `Trainer.stop_all`."""
        self._stopping.set()

    def close(self) -> None:
        """Stop what still runs, and wait until it has brought its checkpoint home."""
        self.stop_all()
        with self._changed:
            self._changed.wait_for(lambda: self._active == 0, timeout=STOP_SECONDS + 2)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._changed:
            self._active += change
            self._changed.notify_all()

    def _train(self, folder: RunFolder, slot: Slot, follow: Callable[[list[Point]], None]) -> None:
        resumed = [folder.checkpoint.name, folder.curves_file.name] if folder.checkpoint.exists() else []
        so_far = [*resumed, samples_file(folder).name]
        ray.get(self._depot.open.remote(folder.fingerprint, read_files(folder.path, so_far)))
        there = portable_run(folder.read_run())
        cargo = self._cluster.hold.cargo(there.files)
        job = TrainingJob(folder.fingerprint, there.run, cargo, slot, folder.path, self._depot)
        future = self._cluster.submit(train_there, name=run_name(there.run), job=job)
        try:
            self._follow(folder, future.wrapped_future, follow)
            future.result()
        except ray.exceptions.RayError as error:
            raise UserError(f"training in {folder.path} was lost by the cluster ({type(error).__name__}); look at "
                            "`ray status`, and repeat the command to go on from the last checkpoint.") from error
        except BaseException:
            # A Ctrl-C in this thread: the others are told by `stop_all`.
            if not self._stopping.is_set() and not ray.wait([future.wrapped_future], timeout=0)[0]:
                self._stopping.set()
                with contextlib.suppress(Interrupted):
                    self._follow(folder, future.wrapped_future, follow)
            raise

    def _follow(self, folder: RunFolder, task: "ray.ObjectRef", follow: Callable[[list[Point]], None]) -> None:
        """Bring home what a task has made until it ends, or until it has stopped."""
        seen, ended, deadline = 0, False, None
        while not ended:
            ended = bool(ray.wait([task], timeout=POLL_SECONDS)[0])
            write_files(folder.path, ray.get(self._depot.news.remote(folder.fingerprint)))
            new = [point for point in folder.curves() if point.step > seen]
            if new:
                seen = new[-1].step
                follow(new)
            if self._stopping.is_set() and deadline is None:
                deadline = time.monotonic() + STOP_SECONDS
                if not ray.get(self._depot.stop.remote(folder.fingerprint)):
                    deadline = 0.0
            if deadline is not None and not ended and time.monotonic() > deadline:
                ray.cancel(task, force=True)
                raise _interrupted(folder)


def _interrupted(folder: RunFolder) -> Interrupted:
    return Interrupted(f"{folder.path} was stopped; repeat the same command to go on from its checkpoint")
