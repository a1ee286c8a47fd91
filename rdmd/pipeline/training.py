"""The training stages: plan, train in processes, put the results where DVC expects them."""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rdmd import config
from rdmd.errors import UserError
from rdmd.files import replacing_folder
from rdmd.pipeline.launch import Slot, Trainer, TrainingProcesses, slots
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import ModelCard, write_model
from rdmd.pipeline.plan import chains, plan_generator, plan_refined, plan_teacher, read_training_code
from rdmd.training.folder import Point, Result, RunFolder
from rdmd.training.spec import DistillRun, DomainClassifierRun, NeuralOTRun, TeacherRun, TrainingRun, run_name

# Opens whatever watches one run (a bar, a tracking run) and gives the function that takes new points of its curves.
Watch = Callable[[RunFolder, TrainingRun], AbstractContextManager[Callable[[list[Point]], None]]]


class Slots(Protocol):
    """Where runs may go."""

    def lend(self) -> AbstractContextManager[Slot]:
        """Wait for a slot, and give it back afterwards."""
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
            raise UserError(f"{file} is damaged; delete {folder.path} and repeat the command to train this run "
                            "anew.") from None
    return folder


def teacher_slot(launch: config.Launch) -> Slot:
    """Where the teacher trains. It runs alone, so all cores are its own unless `launch.threads` says otherwise."""
    return slots(launch.model_copy(update={"parallel": 1}))[0]


def train_teacher(settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses) -> RunFolder:
    """Train (or reuse) the teacher and publish it as models/teacher."""
    slot = teacher_slot(settings.launch)
    run = plan_teacher(settings, layout)
    folder = prepared(layout, run)
    with watch(folder, run) as follow:
        processes.train(folder, slot, follow)
    publish_teacher(settings, layout, folder)
    return folder


def train_one(
    run: TrainingRun, layout: Layout, pool: Slots, watch: Watch, processes: Trainer
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


def train_sweep(settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses) -> None:
    """Train (or reuse) a generator for every lambda, as many at once as there are slots, and publish them all."""
    pool = SlotPool(settings.launch)
    read_training_code()

    def train_chain(lambdas: list[float]) -> list[RunFolder]:
        kept: list[RunFolder] = []
        previous: RunFolder | None = None
        for lam in lambdas:
            previous = train_one(plan_generator(settings, layout, lam, previous), layout, pool, watch, processes)
            refined = previous
            for number in range(len(settings.distill.refine)):
                run = plan_refined(settings, layout, lam, refined, number)
                refined = train_one(run, layout, pool, watch, processes)
            kept.append(refined)
        return kept

    with ThreadPoolExecutor(max_workers=pool.size) as executor:
        futures = [executor.submit(train_chain, lambdas) for lambdas in chains(settings.distill)]
        try:
            wait(futures)
        except BaseException:
            processes.stop_all()
            raise
    publish_generators(settings, layout, [folder for future in futures for folder in future.result()])


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
    common = {
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
        return ModelCard(
            kind="transport-map", cost_weight=run.cost_weight, source_digest=run.source.digest, **common
        )
    return ModelCard(
        kind="generator",
        sigma_init=run.settings.sigma_init,
        input_noise=run.settings.input_noise,
        lam=run.lam,
        source_noise=run.source_noise,
        source_digest=run.source.digest,
        **common,
    )


def _seconds_before(run: TrainingRun) -> float:
    return run.start.seconds_before if isinstance(run, DistillRun) and run.start is not None else 0.0
