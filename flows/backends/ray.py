"""The tasks of a flow on the nodes of a Ray cluster, which all work in one project folder on shared storage.

A task does on its node what it would do on this machine. Ray chooses the node and runs a task again whose node is lost;
the training goes on from the checkpoint in the run's folder.
"""

import contextlib
import contextvars
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import mlflow
import ray
from prefect.settings import get_current_settings
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from prefect_ray.task_runners import PrefectRayFuture

from flows.backends import evaluation_name, training_name, work
from flows.tracking.training import running_sweep, watcher
from rdmd import config
from rdmd.errors import Interrupted, UserError
from rdmd.pipeline.launch import STOP_SECONDS, TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import LocalTraining, SlotPool, prepared
from rdmd.training.run_config import TrainingRun
from rdmd.training.run_folder import RunFolder

if TYPE_CHECKING:
    from rdmd.evaluation.evaluator import EvaluationTask, NamedTranslator
    from rdmd.pipeline.evaluation import Evaluated

RETRIES = 3
CONNECT_SECONDS = 10.0
# Ray ends the tasks of a node that is cut off from the network 200 s later, measured on a busy machine. An NFS server
# keeps the locks of a lost node for its lease, 90 s; a client sees new files after at most 60 s.
LOCK_SECONDS = 300.0
VISIBLE_SECONDS = 90.0
PASSED_ON = ("DVC_STAGE", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL")


@dataclass(frozen=True)
class Node:
    """What every node knows of a flow: the project's folder there, a file in it that this flow made, and the settings
    with one task's share of a node."""

    project: Path
    witness: Path
    settings: config.Settings = field(compare=False)

    def enter(self) -> Layout:
        """Work in the project's folder from now on. Raises UserError if this node has another folder there."""
        if not (self.project / self.witness).is_file():
            raise UserError(
                f"the Ray node {socket.gethostname()} does not see the project at {self.project}; mount "
                "the shared folder there, or set launch.runner.project to its path on the nodes."
            )
        os.chdir(self.project)
        return Layout()

    def train(self, run: TrainingRun) -> None:
        """Train, resume or reuse one run in a process of this node."""
        layout, launch = self.enter(), self.settings.launch
        processes = TrainingProcesses(LOCK_SECONDS)
        LocalTraining(SlotPool(launch), layout, watcher(self.settings, layout), processes).train(run)

    def evaluate(self, index: int) -> "Evaluated":
        """Translate the test sources with one method, by its place among all, and measure the result."""
        from rdmd.pipeline.evaluation import evaluate_one

        on, methods = _loaded(self)
        return evaluate_one(methods[index], on)


@lru_cache(maxsize=1)
def _loaded(node: Node) -> "tuple[EvaluationTask, list[NamedTranslator]]":
    """The evaluation and its methods, kept from one task to the next of a worker process."""
    from rdmd.pipeline.evaluation import evaluation_task
    from rdmd.pipeline.translators import translators

    layout = node.enter()
    on = evaluation_task(node.settings, layout)
    return on, list(translators(node.settings, layout, on.device))


class RayBackend:
    """As `FlowBackend`, on the nodes of a cluster."""

    def __init__(self, tasks: "RayTaskRunner[Any]", node: Node, layout: Layout, gpus: int) -> None:
        self._tasks, self._node, self._layout, self._gpus = tasks, node, layout, gpus
        self._flow = contextvars.copy_context()
        self._running: set[ray.ObjectRef] = set()
        self._stopping = threading.Event()

    def train(self, run: TrainingRun) -> RunFolder:
        """As `FlowBackend.train`."""
        folder, name = prepared(self._layout, run), training_name(run)
        self._result(name, self._submit(name, self._gpus, self._node.train, run))
        deadline = time.monotonic() + VISIBLE_SECONDS
        while folder.result() is None and time.monotonic() < deadline:
            # Listing the folder makes an NFS client ask the server for its files again.
            list(folder.path.iterdir())
            time.sleep(0.5)
        return folder

    def stop_all(self) -> None:
        """As `FlowBackend.stop_all`. Ray interrupts the tasks, and each stops its training process."""
        self._stopping.set()
        running = list(self._running)
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS)

    def evaluate(self, methods: "Sequence[NamedTranslator]", on: "EvaluationTask") -> "Iterator[Evaluated]":
        """As `FlowBackend.evaluate`, as many at once as the nodes have room for."""
        names = [evaluation_name(method) for method in methods]
        futures = [
            self._submit(name, min(1, self._gpus), self._node.evaluate, index) for index, name in enumerate(names)
        ]
        for name, future in zip(names, futures, strict=True):
            yield self._result(name, future)

    def _submit(self, name: str, gpus: int, do: Callable[..., Any], argument: object) -> "PrefectRayFuture[Any]":
        """A task that does `do(what)` on a node with room for it."""
        cpus = self._node.settings.launch.threads

        def submit() -> "PrefectRayFuture[Any]":
            with remote_options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, scheduling_strategy="SPREAD"):
                return self._tasks.submit(work, {"name": name, "do": do, "arguments": (argument,)})

        future = self._flow.copy().run(submit)
        self._running.add(future.wrapped_future)
        return future

    def _result(self, name: str, future: "PrefectRayFuture[Any]") -> Any:
        try:
            if self._stopping.is_set():
                ray.cancel(future.wrapped_future)
            return future.result()
        except Exception as error:
            if self._stopping.is_set():
                raise Interrupted(f"`{name}` was stopped; repeat the same command to go on") from error
            if isinstance(error, ray.exceptions.RayError):
                raise UserError(
                    f"the cluster lost the task `{name}` ({type(error).__name__}); look at `ray status`, "
                    "and repeat the command to go on from the last checkpoint."
                ) from error
            raise
        finally:
            self._running.discard(future.wrapped_future)


@contextlib.contextmanager
def ray_backend(settings: config.Settings, runner: config.RayRunner, layout: Layout) -> Iterator[RayBackend]:
    """Connect to a cluster for the length of a block; tasks that still run at its end are ended.

    Raises UserError if there is no cluster, if no node has room for a task, or if the nodes cannot reach the servers of
    Prefect and MLflow.
    """
    project = runner.project or layout.root.resolve()
    with contextlib.ExitStack() as stack:
        tasks = _connected(runner, project, stack)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _check_servers(len({node["NodeManagerAddress"] for node in nodes}))
        launch, gpus = _share(settings.launch, [node["Resources"] for node in nodes])
        layout.runs.mkdir(parents=True, exist_ok=True)
        witness = layout.runs / f".flow-{uuid4().hex}"
        witness.touch()
        stack.callback(witness.unlink, missing_ok=True)
        node = Node(project, witness.relative_to(layout.root), settings.model_copy(update={"launch": launch}))
        # The nodes find the sweep's run in MLflow, which must not be made by two of them.
        stack.enter_context(running_sweep(settings, layout))
        yield RayBackend(tasks, node, layout, gpus)


def _connected(runner: config.RayRunner, project: Path, stack: contextlib.ExitStack) -> "RayTaskRunner[Any]":
    """Join the cluster, until `stack` is left."""
    address = os.environ.get("RAY_ADDRESS", runner.address) if runner.address == "auto" else runner.address
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables = {"PYTHONPATH": str(project), "DVC_ROOT": str(project), "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    init = {
        "address": address, "namespace": "rdmd", "runtime_env": {"env_vars": passed_on | variables},
        "log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False,
    }  # fmt: skip
    try:
        place = urlsplit(f"//{address}")
        if place.hostname and place.port:
            # Ray itself would try for minutes.
            socket.create_connection((place.hostname, place.port), CONNECT_SECONDS).close()
        return stack.enter_context(RayTaskRunner(init_kwargs=init))
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"launch.runner.address is {runner.address!r}, but no Ray cluster of this version answers at "
            f"{address} ({first}); start one (docs/cluster.md), or set launch.runner to local."
        ) from error


def _check_servers(machines: int) -> None:
    servers = (
        ("Prefect", "PREFECT_API_URL", get_current_settings().api.url or "", "prefect server start --host 0.0.0.0"),
        ("MLflow", "MLFLOW_TRACKING_URI", mlflow.get_tracking_uri(), "mlflow server --host 0.0.0.0"),
    )
    for name, variable, uri, command in servers:
        host = urlsplit(uri).hostname or ""
        here = not host or host in ("localhost", "::1") or host.startswith("127.")
        if not uri or (here and machines > 1):
            raise UserError(
                f"launch.runner is ray, whose nodes report to {name}, but they cannot reach "
                f"{uri or 'any server'}; start one (`{command}`) and set {variable} to its address."
            )


def _share(launch: config.Launch, nodes: list[dict[str, float]]) -> tuple[config.Launch, int]:
    """`launch` as one task on a node reads it, and the GPUs of a training. The task's CPUs are `launch.threads`."""
    gpus = launch.processes if launch.device != "cpu" and any(node.get("GPU") for node in nodes) else 0
    if launch.device == "cuda" and not gpus:
        raise UserError(
            "launch.device is cuda, but no node of the cluster has a GPU; set it to auto or cpu, or see `ray status`."
        )
    cpus = launch.threads or max(1, launch.processes)
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        raise UserError(
            f"a training needs {cpus} CPUs (launch.threads) and {gpus} GPUs (launch.processes) of one "
            "node, and no node of the cluster has them; lower these settings, or see `ray status`."
        )
    return launch.model_copy(update={"device": "cuda" if gpus else "cpu", "threads": cpus, "parallel": 1}), gpus
