"""Where the tasks of a flow run: on this machine, or on the nodes of a Ray cluster, as `launch.runner` says."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.tracking.training import running_sweep, watcher
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.table import method_name
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import Backend, LocalTraining, SlotPool
from rdmd.training.run_config import CUTRun, DistillRun, DomainClassifierRun, NeuralOTRun, TeacherRun, TrainingRun
from rdmd.training.run_folder import RunFolder

if TYPE_CHECKING:
    # They import torch, which a flow that trains in other processes does not need.
    from rdmd.evaluation.evaluator import EvaluationTask, NamedTranslator
    from rdmd.pipeline.evaluation import Evaluated

Result = TypeVar("Result")


class FlowBackend(Backend, Protocol):
    """Runs trainings and evaluations as Prefect tasks of the flow that opened it."""

    def evaluate(self, methods: "Sequence[NamedTranslator]", on: "EvaluationTask") -> "Iterator[Evaluated]":
        """Translate the test sources with every method, in their order, and measure the results."""
        ...


@contextlib.contextmanager
def backend(settings: config.Settings, layout: Layout) -> Iterator[FlowBackend]:
    """The backend that `launch.runner` names, for the length of a flow. Raises UserError if it cannot be used."""
    if not isinstance(settings.launch.runner, config.RayRunner):
        with running_sweep(settings, layout):
            yield LocalBackend(settings, layout)
        return
    try:
        import prefect_ray  # noqa: F401
        import ray  # noqa: F401
    except ImportError:
        raise UserError(
            "launch.runner is ray, but the packages ray and prefect-ray are missing here; install them "
            "with `uv pip install --editable '.[ray]'`, or set launch.runner to local."
        ) from None
    from flows.backends.ray import ray_backend

    with ray_backend(settings, settings.launch.runner, layout) as cluster:
        yield cluster


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name}")
def work(name: str, do: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
    """`do(*arguments)` as a task called `name`: a training, or the evaluation of a method."""
    return do(*arguments)


class LocalBackend:
    """As `FlowBackend`, on this machine: as many trainings at once as there are slots, evaluations one by one."""

    def __init__(self, settings: config.Settings, layout: Layout) -> None:
        watch = watcher(settings, layout)
        self._training = LocalTraining(SlotPool(settings.launch), layout, watch, TrainingProcesses())
        # A task that another thread calls belongs to the flow of this one.
        self._flow = contextvars.copy_context()

    def train(self, run: TrainingRun) -> RunFolder:
        """As `FlowBackend.train`, in a process of its own."""
        return self._flow.copy().run(work, training_name(run), self._training.train, (run,))

    def stop_all(self) -> None:
        """As `FlowBackend.stop_all`."""
        self._training.stop_all()

    def evaluate(self, methods: "Sequence[NamedTranslator]", on: "EvaluationTask") -> "Iterator[Evaluated]":
        """As `FlowBackend.evaluate`, one after another: each is timed, and two would slow each other down."""
        from rdmd.pipeline.evaluation import evaluate_one

        return (work(evaluation_name(method), evaluate_one, (method, on)) for method in methods)


def training_name(run: TrainingRun) -> str:
    """The name of a run's task: "train generator, lambda 0.05" or "train generator, lambda 0.01 to 0.5"."""
    match run:
        case TeacherRun():
            return "train teacher" if run.domain == "target" else "train source teacher"
        case DistillRun():
            return f"train generator, lambda {run.lam}"
        case DomainClassifierRun():
            return "train domain classifier"
        case NeuralOTRun():
            return f"train neural OT map, cost weight {run.cost_weight:g}"
        case CUTRun():
            return f"train CUT, NCE weight {run.nce_weight:g}"


def evaluation_name(method: "NamedTranslator") -> str:
    """The name of an evaluation's task: "evaluate SDEdit, sigma 0.6, steps 10"."""
    numbers = {key.replace("_", " "): value for key, value in method.settings.items() if not isinstance(value, str)}
    shown = numbers if method.lam is None else {"lambda": method.lam}
    return ", ".join([f"evaluate {method_name(method.method)}", *(f"{key} {value:g}" for key, value in shown.items())])
