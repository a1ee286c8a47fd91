"""The tasks of a flow on this machine: as many trainings at once as there are slots, evaluations one by one."""

import contextvars
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.backends import evaluation_name, training_name
from flows.device_pool import DevicePool
from flows.tracking.training import watcher
from rdmd import config
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import LocalTraining
from rdmd.training.run_config import TrainingRun
from rdmd.training.run_folder import RunFolder

if TYPE_CHECKING:
    from rdmd.evaluation.evaluator import EvaluationTask, NamedTranslator
    from rdmd.pipeline.evaluation import Evaluated


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name}")
def train(name: str, run: TrainingRun, training: LocalTraining) -> RunFolder:
    """Train, resume or reuse one run in a process of its own."""
    return training.train(run)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name}")
def evaluate(name: str, method: "NamedTranslator", on: "EvaluationTask") -> "Evaluated":
    """Translate the test sources with one method and measure the result."""
    from rdmd.pipeline.evaluation import evaluate_one

    return evaluate_one(method, on)


class LocalBackend:
    """As `FlowBackend`, on this machine."""

    def __init__(self, settings: config.Settings, layout: Layout) -> None:
        watch = watcher(settings, layout)
        self._training = LocalTraining(DevicePool(settings.launch), layout, watch, TrainingProcesses())
        # A task that another thread calls belongs to the flow of this one.
        self._flow = contextvars.copy_context()

    def train(self, run: TrainingRun) -> RunFolder:
        """As `FlowBackend.train`."""
        return self._flow.copy().run(train, training_name(run), run, self._training)

    def stop_all(self) -> None:
        """As `FlowBackend.stop_all`."""
        self._training.stop_all()

    def evaluate(self, methods: "Sequence[NamedTranslator]", on: "EvaluationTask") -> "Iterator[Evaluated]":
        """As `FlowBackend.evaluate`, one after another: each is timed, and two would slow each other down."""
        return (evaluate(evaluation_name(method), method, on) for method in methods)
