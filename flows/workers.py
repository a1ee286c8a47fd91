"""Where a flow's trainings run: on this machine, or on a cluster, as `launch.runner` says."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flows.slots import SharedSlots
from flows.system_metrics import system_metrics
from rdmd import config
from rdmd.errors import UserError
from rdmd.pipeline.launch import Trainer, TrainingProcesses
from rdmd.pipeline.training import Slots


@dataclass(frozen=True)
class Workers:
    """Slots that runs wait for, what trains a run on its slot, and what watches this machine for an MLflow run while
    it trains (nothing, where others train)."""

    slots: Slots
    trainer: Trainer
    machine: Callable[[str], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def workers(launch: config.Launch) -> Iterator[Workers]:
    """For the length of a flow's trainings: when the block ends early, they are asked to stop."""
    runner = launch.runner
    if isinstance(runner, config.RayRunner):
        need_ray()
        from flows.cluster import connected
        from flows.cluster_training import ClusterSlots, ClusterTraining

        with connected(runner) as cluster:
            training = ClusterTraining(cluster)
            try:
                yield Workers(ClusterSlots(launch, runner), training, lambda run_id: contextlib.nullcontext())
            finally:
                training.close()
        return
    here = TrainingProcesses()
    try:
        yield Workers(SharedSlots(launch), here, system_metrics)
    except BaseException:
        here.stop_all()
        raise


def need_ray() -> None:
    """Raises UserError if the packages of the extra `ray` are missing."""
    try:
        import prefect_ray  # noqa: F401
        import ray  # noqa: F401
    except ImportError:
        raise UserError("launch.runner is ray, but the packages ray and prefect-ray are missing here; install them "
                        "with `uv pip install --editable '.[ray]'`, or set launch.runner to local.") from None
