"""The training stages: plan, train in processes, put the results where DVC expects them."""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rdmd import config
from rdmd.errors import UserError
from rdmd.files import replacing_folder, write_json
from rdmd.pipeline.jobs import chains, plan_baselines, plan_generator, plan_refined, plan_teacher
from rdmd.pipeline.launch import Slot, TrainingProcesses, slots
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, write_model
from rdmd.training.run_config import DistillRun, DomainClassifierRun, NeuralOTRun, TeacherRun, TrainingRun, run_name
from rdmd.training.run_folder import Point, Result, RunFolder

# Opens whatever watches one run (a bar, a tracking run) and gives the function that takes new points of its curves.
Watch = Callable[[RunFolder, TrainingRun], AbstractContextManager[Callable[[list[Point]], None]]]


class Backend(Protocol):
    """Where the runs of a stage train. Safe to use from several threads, one run each."""

    def train(self, run: TrainingRun) -> RunFolder:
        """Train, resume or reuse a run. Raises UserError with the run's own sentence if it fails, Interrupted if it is
        stopped."""
        ...

    def stop_all(self) -> None:
        """Ask every run to write a checkpoint and end, and let none begin."""
        ...


class SlotPool:
    """The machine's slots, lent to one run at a time each."""

    def __init__(self, launch: config.Launch) -> None:
        every = slots(launch)
        self.size = len(every)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in every:
            self._free.put(slot)

    @contextmanager
    def lend(self) -> Iterator[Slot]:
        """Wait for a slot, and give it back afterwards."""
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)


def prepared(layout: Layout, run: TrainingRun) -> RunFolder:
    """The run's folder. Raises UserError if what lies in it from before cannot be read."""
    folder = RunFolder.prepare(layout.runs, run)
    for file, read in ((folder.result_file, folder.result), (folder.curves_file, folder.curves)):
        try:
            read()
        except ValueError:
            raise UserError(
                f"{file} is damaged; delete {folder.path} and repeat the command to train this run anew."
            ) from None
    return folder


def alone(settings: config.Settings) -> config.Settings:
    """The settings of a run that trains alone, as the teacher does: all cores are its own unless `launch.threads` says
    otherwise."""
    return settings.model_copy(update={"launch": settings.launch.model_copy(update={"parallel": 1})})


def train_teacher(settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses) -> RunFolder:
    """Train (or reuse) the teacher and publish it as models/teacher."""
    pool = SlotPool(alone(settings).launch)
    return train_teacher_on(LocalTraining(pool, layout, watch, processes), settings, layout)


def train_teacher_on(backend: Backend, settings: config.Settings, layout: Layout) -> RunFolder:
    """As `train_teacher`, on any backend."""
    folder = backend.train(plan_teacher(settings, layout))
    publish_teacher(settings, layout, folder)
    return folder


def train_one(
    run: TrainingRun, layout: Layout, pool: SlotPool, watch: Watch, processes: TrainingProcesses
) -> RunFolder:
    """Train (or reuse) one run of several: the generator of one lambda, or what a baseline needs."""
    folder = prepared(layout, run)
    if folder.result() is not None:
        with watch(folder, run) as follow:
            follow(folder.curves())
        return folder
    with pool.lend() as slot, watch(folder, run) as follow:
        processes.train(folder, slot, follow)
    return folder


@dataclass(frozen=True)
class LocalTraining:
    """The backend of this machine: a process for each run that has a slot."""

    pool: SlotPool
    layout: Layout
    watch: Watch
    processes: TrainingProcesses

    def train(self, run: TrainingRun) -> RunFolder:
        """As `Backend.train`, once a slot is free."""
        return train_one(run, self.layout, self.pool, self.watch, self.processes)

    def stop_all(self) -> None:
        """As `Backend.stop_all`. Returns at once."""
        self.processes.stop_all()


def train_sweep(settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses) -> None:
    """Train (or reuse) a generator for every lambda, as many at once as there are slots, and publish them all."""
    train_sweep_on(LocalTraining(SlotPool(settings.launch), layout, watch, processes), settings, layout)


def train_sweep_on(backend: Backend, settings: config.Settings, layout: Layout) -> list[RunFolder]:
    """As `train_sweep`, on any backend, with as many runs at once as it has room for."""

    def coarse(lam: float, before: Future[RunFolder] | None) -> RunFolder:
        return backend.train(plan_generator(settings, layout, lam, before.result() if before else None))

    def refined(lam: float, begun: Future[RunFolder]) -> RunFolder:
        folder = begun.result()
        for number in range(len(settings.distill.refine)):
            folder = backend.train(plan_refined(settings, layout, lam, folder, number))
        return folder

    check_sweep(settings, layout)
    every = chains(settings.distill)
    # A thread for each, so that none keeps another from beginning.
    with ThreadPoolExecutor(max_workers=2 * sum(map(len, every))) as executor:
        futures = []
        for lambdas in every:
            previous = None
            for lam in lambdas:
                previous = executor.submit(coarse, lam, previous)
                futures.append(executor.submit(refined, lam, previous))
        folders = gathered(futures, backend.stop_all)
    publish_generators(settings, layout, folders)
    return folders


def check_sweep(settings: config.Settings, layout: Layout) -> None:
    """Raises UserError if shards, the teacher or the weights of the cost are missing."""
    plan_generator(settings, layout, chains(settings.distill)[0][0], previous=None)


def gathered(futures: list[Future[RunFolder]], stop: Callable[[], None]) -> list[RunFolder]:
    """The finished runs of all futures; `stop` is called where Ctrl-C ends the wait for them.

    If some fail, the others go on to their end, and the first error by their order is raised.
    """
    try:
        wait(futures)
    except BaseException:
        stop()
        raise
    return [future.result() for future in futures]


def publish_teacher(settings: config.Settings, layout: Layout, folder: RunFolder) -> None:
    """Replace models/teacher by a finished run's weights and card."""
    result = folder.result()
    assert result is not None, f"{folder.path} is published before it is finished"
    with replacing_folder(layout.teacher) as temporary:
        write_model(temporary, card_of(settings, folder, result), folder.weights)


def publish_generators(settings: config.Settings, layout: Layout, folders: list[RunFolder]) -> None:
    """Replace models/generators by the sweep's generators, one folder a lambda."""
    with replacing_folder(layout.generators) as temporary:
        for folder in folders:
            result = folder.result()
            assert result is not None, f"{folder.path} is published before it is finished"
            write_model(temporary / run_name(folder.read_run()), card_of(settings, folder, result), folder.weights)


def card_of(settings: config.Settings, folder: RunFolder, result: Result) -> ModelCard:
    """What a finished run's model is."""
    run = folder.read_run()
    common: dict[str, Any] = {
        "experiment": run.experiment,
        "network": run.network,
        "sample_shape": run.sample_shape,
        "fit": settings.preprocess.fit,
        "run": folder.fingerprint,
        "train_seconds": round(_seconds_before(run) + result.train_seconds, 3),
        "trained_on": result.device,
        "sha256": result.sha256,
        "target_digest": run.target.digest,
    }
    if isinstance(run, TeacherRun):
        return ModelCard(kind="teacher", **common)
    if isinstance(run, DomainClassifierRun):
        return ModelCard(kind="domain-classifier", source_digest=run.source.digest, **common)
    if isinstance(run, NeuralOTRun):
        return ModelCard(kind="transport-map", cost_weight=run.cost_weight, source_digest=run.source.digest, **common)
    return ModelCard(
        kind="generator",
        sigma_init=run.settings.sigma_init,
        input_noise=run.settings.noise_at(run.lam),
        lam=run.lam,
        source_noise=run.source_noise,
        source_digest=run.source.digest,
        **common,
    )


def _seconds_before(run: TrainingRun) -> float:
    return run.start.seconds_before if isinstance(run, DistillRun) and run.start is not None else 0.0


INDEX = "baselines.json"


def train_baselines(
    settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses
) -> list[RunFolder]:
    """Train (or reuse) what the configured baselines need, as many runs at once as there are slots, and publish it."""
    return train_baselines_on(LocalTraining(SlotPool(settings.launch), layout, watch, processes), settings, layout)


def train_baselines_on(backend: Backend, settings: config.Settings, layout: Layout) -> list[RunFolder]:
    """As `train_baselines`, on any backend, with as many runs at once as it has room for."""
    runs = plan_baselines(settings, layout)
    with ThreadPoolExecutor(max_workers=max(1, len(runs))) as executor:
        folders = gathered([executor.submit(backend.train, run) for run in runs], backend.stop_all)
    publish_baselines(settings, layout, folders)
    return folders


def publish_baselines(settings: config.Settings, layout: Layout, folders: list[RunFolder]) -> None:
    """Replace models/baselines by one folder a finished run, and `baselines.json`, which lists them by name with their
    fingerprints and is there even where no baseline needs training."""
    with replacing_folder(layout.baselines) as temporary:
        trained = {}
        for folder in folders:
            result = folder.result()
            assert result is not None, f"{folder.path} is published before it is finished"
            name = run_name(folder.read_run())
            write_model(temporary / name, card_of(settings, folder, result), folder.weights)
            trained[name] = folder.fingerprint
        write_json(temporary / INDEX, {"trained": trained})
