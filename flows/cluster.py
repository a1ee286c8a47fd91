"""The driver's side of a Ray cluster: connecting to it, and sending it Prefect tasks."""

import contextlib
import contextvars
import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import ray
from prefect import Task
from prefect.settings import get_current_settings
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from prefect_ray.task_runners import PrefectRayFuture
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.cargo import Hold
from flows.depot import Depot
from flows.node import EvaluationJob, evaluation_code
from rdmd import config
from rdmd.errors import UserError
from rdmd.files import canonical_json
from rdmd.pipeline.launch import Slot
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.portable import portable_evaluation

# How often a task is begun again that lost its node, or its process to the system.
RETRIES = 3
RAY_ADDRESS = "RAY_ADDRESS"
KNOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process drives."""

    runner: config.RayRunner
    tasks: "RayTaskRunner[object]"
    depot: "ray.actor.ActorHandle"
    hold: Hold
    # The flow's: a task that is sent from a thread of another task belongs to the flow all the same.
    context: contextvars.Context

    def submit(self, task: "Task[..., object]", **parameters: object) -> "PrefectRayFuture[object]":
        """Send a task, which begins when some node has its share of CPUs and GPUs free."""

        def send() -> "PrefectRayFuture[object]":
            with remote_options(
                num_cpus=self.runner.cpus, num_gpus=self.runner.gpus, max_retries=RETRIES, scheduling_strategy="SPREAD"
            ):
                return self.tasks.submit(task, parameters)

        return self.context.copy().run(send)

    def evaluation_job(self, settings: config.Settings, layout: Layout) -> EvaluationJob:
        """All that a node needs for the evaluation of any method."""
        there = portable_evaluation(settings, layout)
        slot = cluster_slot(settings.launch, self.runner)
        launch = settings.launch.model_copy(update={"device": slot.device, "threads": slot.threads})
        cargo = self.hold.cargo(there.files)
        described = there.settings.model_copy(update={"launch": launch})
        key = canonical_json([described.model_dump(mode="json"), cargo.digest()])
        return EvaluationJob(hashlib.sha256(key.encode()).hexdigest(), described, cargo, evaluation_code())


def cluster_slot(launch: config.Launch, runner: config.RayRunner) -> Slot:
    """A task's share of whichever node it comes to."""
    gpus = tuple(range(runner.gpus))
    return Slot("cuda" if gpus else "cpu", gpus, launch.threads or runner.cpus)


@contextlib.contextmanager
def connected(runner: config.RayRunner) -> Iterator[Cluster]:
    """Drive a cluster for the length of a block; whatever still runs on it at the end of the block is ended.

    Raises UserError if there is no cluster, or if its nodes cannot reach Prefect's server.
    """
    address = os.environ.get(RAY_ADDRESS, runner.address) if runner.address == "auto" else runner.address
    try:
        _knock(address)
        ray.init(
            address=address, namespace="rdmd", log_to_driver=False, logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"launch.runner.address is {runner.address!r}, but no Ray cluster of this version answers at "
                        f"{address} ({first}); start one (docs/cluster.md), or set launch.runner to local.") from error
    try:
        _check_api()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        depot = ray.remote(Depot).options(num_cpus=0, scheduling_strategy=here).remote()
        with RayTaskRunner() as tasks:
            yield Cluster(runner, tasks, depot, Hold(), contextvars.copy_context())
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError if nobody listens at HOST:PORT; Ray would try for minutes."""
    place = urlsplit(f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), KNOCK_SECONDS).close()


def _check_api() -> None:
    api = get_current_settings().api.url
    remedy = ("start one that they reach (`prefect server start --host 0.0.0.0`) and set PREFECT_API_URL to its "
              "address")
    if api is None:
        raise UserError(f"launch.runner is ray, whose nodes report to Prefect's server, but there is none; {remedy}.")
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    host = urlsplit(api).hostname or ""
    if len(machines) > 1 and (host in ("localhost", "::1") or host.startswith("127.")):
        raise UserError(f"Prefect's server is {api}, which the other machines of the cluster cannot reach; {remedy}.")
