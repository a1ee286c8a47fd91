"""The sweep's flow: `python -m flows.distill`. One task for every lambda."""

from dataclasses import dataclass

from mlflow.entities import Run
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait

from flows.stage import run_stage
from flows.tracking import Record, open_record, sweep_run
from flows.watch import digests, watcher
from flows.workers import Workers, workers
from rdmd import config
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.plan import chains, plan_generator, plan_refined
from rdmd.pipeline.training import publish_generators, train_one
from rdmd.training.folder import RunFolder
from rdmd.training.spec import DistillRun


@dataclass(frozen=True)
class Sweep:
    """What the tasks of one sweep share."""

    settings: config.Settings
    layout: Layout
    workers: Workers
    record: Record
    parent: Run


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="lambda {lam:g}")
def train(lam: float, sweep: Sweep, previous: RunFolder | None) -> RunFolder:
    """Train, resume or reuse the generator of one lambda, continuing `previous` where the sweep is a continuation."""
    return _train(plan_generator(sweep.settings, sweep.layout, lam, previous), sweep)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="lambda {lam:g}, refinement {number}")
def refine(lam: float, sweep: Sweep, previous: RunFolder, number: int) -> RunFolder:
    """Train, resume or reuse one of the last runs of one lambda, which `distill.refine` lists."""
    return _train(plan_refined(sweep.settings, sweep.layout, lam, previous, number), sweep)


def _train(run: DistillRun, sweep: Sweep) -> RunFolder:
    watch = watcher(sweep.record, sweep.parent, sweep.workers)
    return train_one(run, sweep.layout, sweep.workers.slots, watch, sweep.workers.trainer)


@flow(name="distill", validate_parameters=False)
def distill(settings: config.Settings, layout: Layout) -> list[str]:
    """RDMD for every lambda of the sweep; publishes models/generators and gives the runs' fingerprints."""
    every = chains(settings.distill)
    # Whatever is missing is told before anything is recorded.
    plan_generator(settings, layout, every[0][0], previous=None)
    record = open_record(settings.experiment)
    parent = sweep_run(record, settings, digests(layout))
    with workers(settings.launch) as work:
        sweep = Sweep(settings, layout, work, record, parent)
        futures = []
        for lambdas in every:
            previous = None
            for lam in lambdas:
                previous = refined = train.submit(lam, sweep, previous)
                for number in range(len(settings.distill.refine)):
                    refined = refine.submit(lam, sweep, refined, number)
                futures.append(refined)
        wait(futures)
    folders = [future.result() for future in futures]
    publish_generators(settings, layout, folders)
    return [folder.fingerprint for folder in folders]


if __name__ == "__main__":
    run_stage(distill, __doc__ or "")
