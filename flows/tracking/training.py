"""A training in MLflow and Prefect: parameters, curves, images, the machine's load, progress."""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from uuid import UUID

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from PIL import Image
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.tracking.runs import (
    FINGERPRINT,
    Record,
    create_run,
    find_run,
    log_data,
    log_params,
    open_record,
    provenance_tags,
    reason,
    running_children,
    sweep_run,
    training_inputs,
)
from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.errors import Interrupted, UserError
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import Watch
from rdmd.progress import run_bar
from rdmd.training.run_config import CUTRun, DistillRun, NeuralOTRun, TrainingRun, run_name
from rdmd.training.run_folder import Point, RunFolder

# Curves have names of their own: a run's `cost` is that of the evaluation, on the test split.
CURVES = "train/"
# Each message to the two servers costs CPU time that training needs.
SEND_SECONDS = 5.0
# At most so many lines of a training are in Prefect's log.
LINES = 20
# How long the end of a training waits for a store that does not answer, and between its attempts.
OUTAGE_SECONDS, RETRY_SECONDS = 300.0, 5.0
# What MLflow's client raises where its server is gone or its SQLite file is locked; `requests` raises OSError.
OUTAGE = (MlflowException, OSError)


@contextlib.contextmanager
def running_sweep(settings: config.Settings, layout: Layout) -> Iterator[None]:
    """Show the sweep's run as running for the length of a block, and then as finished, failed or killed.

    Ctrl-C or an `Interrupted` kills it, any other exception fails it.
    """
    record = open_record(settings.experiment)
    run_id = sweep_run(record, settings, digests(layout)).info.run_id
    record.client.update_run(run_id, "RUNNING")
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception as error:
        status = "KILLED" if isinstance(error, Interrupted) else "FAILED"
        raise
    finally:
        # A store that does not answer must not hide the error, nor fail a stage whose work is done.
        with contextlib.suppress(*OUTAGE):
            if status == "KILLED":
                # On a busy machine this process may be killed before the thread of a training has recorded its end.
                for child in running_children(record, run_id):
                    record.client.set_terminated(child.info.run_id, "KILLED")
            record.client.set_terminated(run_id, status)


@contextlib.contextmanager
def tracked(
    record: Record, parent: Run, folder: RunFolder, run: TrainingRun
) -> Iterator[Callable[[list[Point]], None]]:
    """A child run of `parent` for one training run; yields the function that records new points of its curves.

    Points and grids that the store already holds, from before a crash, are not recorded again. A run that an earlier
    sweep trained is recorded for this one too, from its files. While it trains, MLflow logs the machine's load.

    A store that does not answer stops no training: points are kept and sent later. Raises UserError if it does not
    answer for `OUTAGE_SECONDS` after the training either.
    """
    client = record.client
    child = find_run(record, FINGERPRINT, folder.fingerprint, parent)
    if child is None:
        child = _new_run(record, parent, folder, run)
    elif child.info.status == "FINISHED":
        yield lambda points: None
        return
    run_id = child.info.run_id
    for key, value in provenance_tags().items():
        client.set_tag(run_id, key, value)
    recorder = Recorder(client, run_id, folder)
    try:
        with mlflow.start_run(run_id=run_id, log_system_metrics=False if folder.result() else None):
            yield recorder.record
            recorder.finish()
    except BaseException as error:
        if not isinstance(error, UserError):
            with contextlib.suppress(*OUTAGE):
                client.set_terminated(run_id, status="KILLED")
        raise


def record_finished(record: Record, parent: Run, folder: RunFolder) -> None:
    """Record a finished run from its folder, once, where an earlier sweep trained it."""
    with tracked(record, parent, folder, folder.read_run()) as record_points:
        record_points(folder.curves())


# The keys in params.yaml of the settings of each kind of run.
_SECTIONS = {
    "teacher": "teacher",
    "distill": "distill",
    "domain-classifier": "baselines.egsde.classifier",
    "neural-ot": "baselines.neural_ot",
    "cut": "baselines.cut",
}


def _params(run: TrainingRun) -> dict[str, object]:
    """A run's settings by their keys in params.yaml, and the parameters in which it differs from its siblings."""
    every = run.model_dump(mode="json")
    siblings = ("lambdas", "cost_weights", "nce_weights")
    own: dict[str, object] = {}
    if isinstance(run, DistillRun):
        own = {"method": "rdmd", "lambda": str(run.lam)}
    elif isinstance(run, NeuralOTRun):
        own = {"method": "neural-ot", "cost_weight": run.cost_weight}
    elif isinstance(run, CUTRun):
        own = {"method": "cut", "nce_weight": run.nce_weight}
    return own | {
        **{key: every[key] for key in ("experiment", "seed", "kind", "network")},
        "launch": {key: every[key] for key in ("precision", "processes")} | every.get("compute", {}),
        _SECTIONS[run.kind]: {key: value for key, value in every["settings"].items() if key not in siblings},
    }


def _new_run(record: Record, parent: Run, folder: RunFolder, run: TrainingRun) -> Run:
    tags = {FINGERPRINT: folder.fingerprint, MLFLOW_PARENT_RUN_ID: parent.info.run_id}
    child = create_run(record, run_name(run), tags)
    log_params(record, child, _params(run))
    for run_of_mlflow in (parent, child):
        log_data(record.client, run_of_mlflow.info.run_id, training_inputs(run))
    return child


class Recorder:
    """Sends curves and sample grids to one MLflow run, each once, as soon as the store takes them."""

    def __init__(self, client: MlflowClient, run_id: str, folder: RunFolder) -> None:
        self.client, self.run_id, self.folder = client, run_id, folder
        curves = [name for name in client.get_run(run_id).data.metrics if name.startswith(CURVES)]
        histories = [client.get_metric_history(run_id, name) for name in curves]
        self.last_step = max((metric.step for history in histories for metric in history), default=0)
        self.grids = {Path(item.path).name for item in client.list_artifacts(run_id, "samples")}
        self.waiting: list[Metric] = []
        self.answers = True

    def record(self, points: list[Point]) -> None:
        """Record new points, and the grids that are in the run's folder by now; later, if the store does not answer."""
        new = [point for point in points if point.step > self.last_step]
        now = int(time.time() * 1000)
        self.waiting += [Metric(CURVES + k, v, now, point.step) for point in new for k, v in point.values.items()]
        if new:
            self.last_step = new[-1].step
        try:
            self._send()
        except OUTAGE as error:
            if self.answers:
                say = f"MLflow does not take the record ({reason(error)}); training goes on, and sends it later"
                print(say, file=sys.stderr, flush=True)
            self.answers = False
        else:
            self.answers = True

    def finish(self) -> None:
        """Record what is left, and the outcome of the training. Raises UserError if the store does not answer."""
        give_up = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                self._send()
                self._send_result()
                return
            except OUTAGE as error:
                if time.monotonic() > give_up:
                    raise UserError(
                        f"the training is finished and kept in {self.folder.path}, but the MLflow store "
                        f"{mlflow.get_tracking_uri()} does not take its record ({reason(error)}); mend the store and "
                        "repeat the command, which trains nothing again."
                    ) from error
            time.sleep(RETRY_SECONDS)

    def _send_result(self) -> None:
        result = self.folder.result()
        if result is not None:
            self.client.log_metric(self.run_id, "train_seconds", result.train_seconds)
            self.client.log_metric(self.run_id, "peak_memory_mib", result.peak_memory_mib)
            self.client.set_tag(self.run_id, "device", result.device)
            self.client.set_tag(self.run_id, "sha256", result.sha256)
            if result.kept_step is not None:
                self.client.set_tag(self.run_id, "kept_step", str(result.kept_step))

    def _send(self) -> None:
        while self.waiting:
            self.client.log_batch(self.run_id, metrics=self.waiting[:1000])
            del self.waiting[:1000]
        for grid in sorted(self.folder.samples.glob("*.png")):
            if grid.name not in self.grids:
                self.client.log_artifact(self.run_id, str(grid), "samples")
                with Image.open(grid) as image:
                    self.client.log_image(self.run_id, np.asarray(image), key="samples", step=int(grid.stem))
                self.grids.add(grid.name)


def watcher(settings: config.Settings, layout: Layout) -> Watch:
    """A function that records a training in MLflow, below its sweep's run, and shows its progress in Prefect."""
    record, data = open_record(settings.experiment), digests(layout)
    parent = sweep_run(record, settings, data)

    @contextlib.contextmanager
    def watch(folder: RunFolder, run: TrainingRun) -> Iterator[Callable[[list[Point]], None]]:
        name, steps = run_name(run), run.settings.steps
        key = re.sub(r"[^a-z0-9]+", "-", name)
        # It gives a coroutine only where an event loop runs.
        artifact = cast(UUID, create_progress_artifact(0.0, key, f"{name}, {steps} steps"))
        with tracked(record, parent, folder, run) as log, run_bar(name, steps) as bar:
            waiting: list[Point] = []
            sent, printed = time.monotonic(), 0

            def send() -> None:
                nonlocal printed
                if waiting:
                    log(waiting)
                    step = waiting[-1].step
                    update_progress_artifact(artifact, progress=100.0 * step / steps)
                    if (part := LINES * step // steps) > printed:
                        printed = part
                        values = ", ".join(f"{name} {value:.3g}" for name, value in waiting[-1].values.items())
                        get_run_logger().info(f"{name}: step {step} of {steps}, {values}")
                    waiting.clear()

            def follow(points: list[Point]) -> None:
                nonlocal sent
                bar.follow(points)
                waiting.extend(points)
                if time.monotonic() - sent >= SEND_SECONDS:
                    send()
                    sent = time.monotonic()

            try:
                yield follow
            finally:
                send()

    return watch


def digests(layout: Layout) -> dict[str, str]:
    """The digests of the domains that a sweep learns from, as tags."""
    return {f"{name}_digest": read_manifest(layout.shards / name).digest for name in ("source", "target")}
