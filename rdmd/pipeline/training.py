"""The training stages: plan the runs, train them in processes, write the models that DVC expects."""

import csv
import io
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from filelock import FileLock, Timeout

from rdmd import config
from rdmd.data.likeness import SourceStatistics
from rdmd.data.shards import stored_array
from rdmd.errors import UserError
from rdmd.files import replacing_folder, write_json, write_text
from rdmd.pipeline.dvc_cache import bring_back, publish_run
from rdmd.pipeline.jobs import plan_baselines, plan_generators, plan_teacher
from rdmd.pipeline.launch import Slot, TrainingProcesses, gpu_name, slots
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, read_card, write_model
from rdmd.training.run_config import (
    CUTRun,
    DomainClassifierRun,
    NeuralOTRun,
    TeacherRun,
    TrainingRun,
    run_name,
)
from rdmd.training.run_folder import Point, Result, RunFolder

# Of a file of curves, which is kept in git.
CURVE_POINTS = 200
# Opens the observer of a run (a bar, a tracking run); the context gives a function for new points of its curves.
Watch = Callable[[RunFolder, TrainingRun], AbstractContextManager[Callable[[list[Point]], None]]]


class Backend(Protocol):
    """Trains the runs of a stage. Safe to use from several threads, one run each."""

    def train(self, run: TrainingRun) -> RunFolder:
        """Train, resume or reuse a run. Raises UserError with the run's own sentence if it fails, Interrupted if it is
        stopped."""
        ...

    def stop_all(self) -> None:
        """Ask every run to write a checkpoint and end, and start no other run."""
        ...


class SlotPool:
    """The machine's slots; a slot serves one run at a time, and no two pools, in whatever processes, share a GPU."""

    def __init__(self, launch: config.Launch) -> None:
        every = slots(launch)
        self._gpus = {gpu: _Gpu(gpu_name(gpu)) for slot in every for gpu in slot.gpus}
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in every:
            self._free.put(slot)

    @contextmanager
    def lend(self) -> Iterator[Slot]:
        """Wait for a slot whose GPUs no other pool uses, and return it afterwards."""
        slot = self._free.get()
        try:
            with ExitStack() as stack:
                # In one order, so that two runs never wait for each other.
                for gpu in sorted(slot.gpus):
                    stack.enter_context(self._gpus[gpu].reserved())
                yield slot
        finally:
            self._free.put(slot)


class _Gpu:
    """The lock of a GPU, which several slots of one pool share: a file in the system's temporary folder.

    It holds across checkouts, users and Prefect servers, and the system frees it when its process dies.
    """

    def __init__(self, name: str) -> None:
        self._name, self._mutex = name, threading.Lock()
        # It counts how often it is acquired. Everybody may write to it, since users share GPUs.
        self._lock = FileLock(Path(tempfile.gettempdir()) / f"rdmd-gpu-{name}.lock", mode=0o666, thread_local=False)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        with self._mutex:
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                print(f"waiting for GPU {self._name}, which another run uses", file=sys.stderr, flush=True)
                self._lock.acquire(poll_interval=1.0)
        try:
            yield
        finally:
            with self._mutex:
                self._lock.release()


def prepared(layout: Layout, run: TrainingRun) -> RunFolder:
    """The run's folder. Raises UserError if its files from before cannot be read."""
    folder = RunFolder.prepare(layout.runs, run)
    if not folder.result_file.exists() and not folder.checkpoint.exists():
        bring_back(layout.root, folder)
    for file, read in ((folder.result_file, folder.result), (folder.curves_file, folder.curves)):
        try:
            read()
        except ValueError:
            raise UserError(
                f"{file} is damaged; delete {folder.path} and repeat the command to train this run anew."
            ) from None
    return folder


def alone(settings: config.Settings) -> config.Settings:
    """The settings of a run that trains alone, as the teacher does: all cores unless `launch.threads` is set."""
    return settings.model_copy(update={"launch": settings.launch.model_copy(update={"parallel": 1})})


@dataclass(frozen=True)
class LocalTraining:
    """The backend of this machine: a process for each run that holds a slot."""

    pool: SlotPool
    layout: Layout
    watch: Watch
    processes: TrainingProcesses

    def train(self, run: TrainingRun) -> RunFolder:
        """As `Backend.train`, when a slot is free."""
        folder = prepared(self.layout, run)
        if folder.result() is not None:
            with self.watch(folder, run) as follow:
                follow(folder.curves())
            return folder
        with self.pool.lend() as slot, self.watch(folder, run) as follow:
            self.processes.train(folder, slot, follow)
        return folder

    def stop_all(self) -> None:
        """As `Backend.stop_all`. Returns at once."""
        self.processes.stop_all()


def train_teacher(settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses) -> RunFolder:
    """Train (or reuse) the teacher on this machine and publish it as models/teacher."""
    pool = SlotPool(alone(settings).launch)
    return train_teacher_on(LocalTraining(pool, layout, watch, processes), settings, layout)


def train_teacher_on(backend: Backend, settings: config.Settings, layout: Layout) -> RunFolder:
    """As `train_teacher`, on any backend."""
    folder = backend.train(plan_teacher(settings, layout))
    with replacing_folder(layout.teacher) as temporary:
        _write_model(settings, folder, temporary)
    write_curves(layout, layout.teacher)
    return folder


def train_generators(
    settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses
) -> list[RunFolder]:
    """Train (or reuse) the generators on this machine, as many at once as there are slots, and publish them as
    models/generators."""
    return train_generators_on(LocalTraining(SlotPool(settings.launch), layout, watch, processes), settings, layout)


def train_generators_on(backend: Backend, settings: config.Settings, layout: Layout) -> list[RunFolder]:
    """As `train_generators`, on any backend."""
    folders = _train_all(backend, list(plan_generators(settings, layout)))
    publish_generators(settings, layout, folders)
    return folders


def train_baselines(
    settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses
) -> list[RunFolder]:
    """Train (or reuse) the networks of the configured baselines on this machine, as many at once as there are slots,
    and publish them as models/baselines."""
    return train_baselines_on(LocalTraining(SlotPool(settings.launch), layout, watch, processes), settings, layout)


def train_baselines_on(backend: Backend, settings: config.Settings, layout: Layout) -> list[RunFolder]:
    """As `train_baselines`, on any backend. `baselines.json` lists the networks with their fingerprints; it exists even
    if no baseline needs training."""
    runs = plan_baselines(settings, layout)
    folders = _train_all(backend, runs)
    with replacing_folder(layout.baselines) as temporary:
        names = [run_name(run) for run in runs]
        for name, folder in zip(names, folders, strict=True):
            _write_model(settings, folder, temporary / name)
        trained = {name: folder.fingerprint for name, folder in zip(names, folders, strict=True)}
        write_json(temporary / "baselines.json", {"trained": trained})
    write_curves(layout, layout.baselines)
    return folders


def _train_all(backend: Backend, runs: list[TrainingRun]) -> list[RunFolder]:
    """The finished runs; Ctrl-C stops all. If some fail, the others go on to their end, and the first error by their
    order is raised."""
    # A thread for each run, so that no run delays the start of another.
    with ThreadPoolExecutor(max_workers=max(1, len(runs))) as executor:
        futures = [executor.submit(backend.train, run) for run in runs]
        try:
            wait(futures)
        except BaseException:
            backend.stop_all()
            raise
        return [future.result() for future in futures]


def publish_generators(settings: config.Settings, layout: Layout, folders: list[RunFolder]) -> None:
    """Replace models/generators by finished runs, a folder for each generator."""
    noise = isinstance(settings.domains.source, config.Noise)
    source = None if noise else SourceStatistics.of(stored_array(layout.shards / "source", "train"))
    with replacing_folder(layout.generators) as temporary:
        for folder in folders:
            _write_model(settings, folder, temporary / run_name(folder.read_run()), source)
    write_curves(layout, layout.generators)


def write_curves(layout: Layout, models: Path) -> None:
    """Write reports/curves/<stage>.csv from the runs of the models in the folder `models`, which names the stage.

    A line is (model, metric, step, value). A model whose run is no longer in `runs/` has no lines.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "metric", "step", "value"])
    for file in sorted(models.rglob("model.json")):
        points = RunFolder(layout.runs / read_card(file.parent).run).curves()
        for metric in dict.fromkeys(name for point in points for name in point.values):
            # Evaluations are on few of the points.
            for step, value in thinned([(p.step, p.values[metric]) for p in points if metric in p.values]):
                writer.writerow([file.parent.name, metric, step, f"{value:.5g}"])
    write_text(layout.curves / f"{models.name}.csv", text.getvalue())


def thinned(curve: Sequence[tuple[int, float]], count: int = CURVE_POINTS) -> list[tuple[int, float]]:
    """At most `count` points (step, value): the means over equal parts of a curve, each at its part's last step."""
    parts = [part.tolist() for part in np.array_split(np.arange(len(curve)), count) if len(part)]
    return [(curve[part[-1]][0], float(np.mean([curve[i][1] for i in part]))) for part in parts]


def _write_model(
    settings: config.Settings, folder: RunFolder, place: Path, source: SourceStatistics | None = None
) -> None:
    """Write a finished run's weights, card and record into the folder `place`."""
    result = folder.result()
    assert result is not None, f"{folder.path} is published before it is finished"
    card = card_of("pad" if settings.preprocess.fit == "pad" else "crop", folder, result)
    more = {"source": source, "white": settings.preprocess.white}
    write_model(place, card.model_copy(update=more), folder.weights)
    publish_run(folder, place)


def card_of(fit: Literal["crop", "pad"], folder: RunFolder, result: Result) -> ModelCard:
    """The card of a finished run's model, which makes images square as `fit` says."""
    run = folder.read_run()
    common: dict[str, Any] = {
        "experiment": run.experiment,
        "network": run.network,
        "sample_shape": run.sample_shape,
        "codec": run.codec,
        "fit": fit,
        "run": folder.fingerprint,
        "train_seconds": result.train_seconds,
        "trained_on": result.device,
        "sha256": result.sha256,
        "target_digest": run.target.digest,
    }
    if isinstance(run, TeacherRun):
        return ModelCard(kind="teacher", **common)
    if isinstance(run, DomainClassifierRun):
        return ModelCard(kind="domain-classifier", source_digest=run.source.digest, **common)
    if isinstance(run, CUTRun):
        return ModelCard(kind="cut-generator", source_digest=run.source.digest, **common)
    if isinstance(run, NeuralOTRun):
        return ModelCard(kind="transport-map", cost_weight=run.cost_weight, source_digest=run.source.digest, **common)
    return ModelCard(
        kind="generator",
        sigma_init=run.settings.sigma_init,
        input_noise=run.settings.input_noise,
        lambdas=run.lam if isinstance(run.lam, config.LambdaRange) else None,
        lam=run.lam.middle if isinstance(run.lam, config.LambdaRange) else run.lam,
        source_noise=run.source_noise,
        source_digest=run.source.digest,
        **common,
    )
