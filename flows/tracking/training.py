"""A training in MLflow and Prefect: parameters, curves, images, progress."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from PIL import Image
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.tracking.datasets import log_data, training_inputs
from flows.tracking.runs import (
    FINGERPRINT,
    Record,
    find_run,
    log_params,
    open_record,
    provenance,
    sweep_run,
    system_metrics,
)
from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.errors import UserError
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import Watch
from rdmd.progress import run_bar
from rdmd.training.run_config import DistillRun, DomainClassifierRun, NeuralOTRun, TeacherRun, TrainingRun, run_name
from rdmd.training.run_folder import Point, RunFolder

# Curves have names of their own: a run's `cost` is that of the evaluation, on the test split.
CURVES = "train/"


@contextlib.contextmanager
def tracked(
    record: Record, parent: Run, folder: RunFolder, run: TrainingRun
) -> Iterator[Callable[[list[Point]], None]]:
    """A child run of `parent` for one training run; gives the function that records new points of its curves.

    Points and grids that the store already holds, from before a crash, are not recorded again. A run that an earlier
    sweep trained is recorded for this one too, from its files.
    """
    child = find_run(record, FINGERPRINT, folder.fingerprint, parent)
    if child is None:
        child = _new(record, parent, folder, run)
    elif child.info.status == "FINISHED":
        yield lambda points: None
        return
    else:
        record.client.update_run(child.info.run_id, status="RUNNING")
        for key, value in provenance().items():
            record.client.set_tag(child.info.run_id, key, value)
    run_id = child.info.run_id
    recorder = _Recorder(record.client, run_id, folder)
    trains = folder.result() is None
    try:
        with system_metrics(run_id) if trains else contextlib.nullcontext():
            yield recorder.record
    except BaseException as error:
        record.client.set_terminated(run_id, status="FAILED" if isinstance(error, UserError) else "KILLED")
        raise
    recorder.record([])
    result = folder.result()
    if result is not None:
        record.client.log_metric(run_id, "train_seconds", result.train_seconds)
        record.client.log_metric(run_id, "peak_memory_mib", result.peak_memory_mib)
        record.client.set_tag(run_id, "device", result.device)
        record.client.set_tag(run_id, "sha256", result.sha256)
    record.client.set_terminated(run_id, status="FINISHED")


def record_finished(record: Record, parent: Run, folder: RunFolder) -> None:
    """Record a run that is finished from its folder, as where an earlier sweep trained it; once."""
    with tracked(record, parent, folder, folder.read_run()) as record_points:
        record_points(folder.curves())


def described(run: TrainingRun) -> dict[str, object]:
    """A run's settings by the keys that they have in params.yaml, and what tells it from its siblings."""
    everything = run.model_dump(mode="json")
    settings = everything["settings"]
    own: dict[str, object] = {}
    match run:
        case TeacherRun():
            section = {"teacher": settings}
        case DistillRun():
            section = {"distill": {key: value for key, value in settings.items() if key != "lambdas"}}
            own = {"method": "rdmd", "lambda": run.lam}
        case DomainClassifierRun():
            section = {"baselines": {"egsde": {"classifier": settings}}}
        case NeuralOTRun():
            kept = {key: value for key, value in settings.items() if key != "cost_weights"}
            section = {"baselines": {"neural_ot": kept}}
            own = {"method": "neural-ot", "cost_weight": run.cost_weight}
    common = {
        **{key: everything[key] for key in ("experiment", "seed", "kind", "network")},
        "launch": {key: everything[key] for key in ("precision", "processes")} | everything.get("compute", {}),
    }
    return common | own | section


def _new(record: Record, parent: Run, folder: RunFolder, run: TrainingRun) -> Run:
    tags = {FINGERPRINT: folder.fingerprint, MLFLOW_PARENT_RUN_ID: parent.info.run_id, **provenance()}
    child = record.client.create_run(record.experiment_id, run_name=run_name(run), tags=tags)
    log_params(record, child, described(run))
    data = training_inputs(run)
    for one in (parent, child):
        log_data(record.client, one.info.run_id, data)
    return child


class _Recorder:
    """Sends curves and sample grids to one MLflow run, each once."""

    def __init__(self, client: MlflowClient, run_id: str, folder: RunFolder) -> None:
        self.client, self.run_id, self.folder = client, run_id, folder
        curves = [name for name in client.get_run(run_id).data.metrics if name.startswith(CURVES)]
        histories = [client.get_metric_history(run_id, name) for name in curves]
        self.last_step = max((metric.step for history in histories for metric in history), default=0)
        self.grids = {Path(item.path).name for item in client.list_artifacts(run_id, "samples")}

    def record(self, points: list[Point]) -> None:
        """Record new points, and the grids that lie in the run's folder by now."""
        new = [point for point in points if point.step > self.last_step]
        if new:
            now = int(time.time() * 1000)
            metrics = [Metric(CURVES + k, v, now, point.step) for point in new for k, v in point.values.items()]
            for start in range(0, len(metrics), 1000):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + 1000])
            self.last_step = new[-1].step
        for grid in sorted(self.folder.samples.glob("*.png")):
            if grid.name not in self.grids:
                self.client.log_artifact(self.run_id, str(grid), "samples")
                with Image.open(grid) as picture:
                    self.client.log_image(self.run_id, np.asarray(picture), key="samples", step=int(grid.stem))
                self.grids.add(grid.name)


# Each message to the two servers costs CPU time that training wants.
SEND_SECONDS = 5.0


def watcher(settings: config.Settings, layout: Layout) -> Watch:
    """Opens the watch of a training, which is recorded below the run of its sweep, made here if need be."""
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
            sent = time.monotonic()

            def send() -> None:
                if waiting:
                    log(waiting)
                    update_progress_artifact(artifact, progress=100.0 * waiting[-1].step / steps)
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
