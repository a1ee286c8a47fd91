"""What watches a training run from a flow: a bar on the terminal, a run in MLflow, a progress artifact in Prefect."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.recorded_training import tracked
from flows.tracking import open_record, sweep_run
from rdmd import config
from rdmd.domains.manifest import read_manifest
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import Watch
from rdmd.progress import run_bar
from rdmd.training.folder import Point, RunFolder
from rdmd.training.spec import TrainingRun, run_name

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
