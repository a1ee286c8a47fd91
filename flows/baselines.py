"""The flow of what baselines need trained: `python -m flows.baselines`. One task for every run."""

from mlflow.entities import Run
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait

from flows.stage import run_stage
from flows.tracking import Record, open_record, sweep_run
from flows.watch import digests, watcher
from flows.workers import Workers, workers
from rdmd import config
from rdmd.pipeline.baselines import publish_baselines
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.plan import plan_baselines
from rdmd.pipeline.training import train_one
from rdmd.training.folder import RunFolder
from rdmd.training.spec import TrainingRun, run_name


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name}")
def train(
    name: str, run: TrainingRun, layout: Layout, work: Workers, record: Record, parent: Run
) -> RunFolder:
    """Train, resume or reuse one network that a baseline needs."""
    return train_one(run, layout, work.slots, watcher(record, parent, work), work.trainer)


@flow(name="baselines", validate_parameters=False)
def baselines(settings: config.Settings, layout: Layout) -> list[str]:
    """The source's teacher, the domain classifier and the neural OT maps, as far as baselines are configured that need
    them; publishes models/baselines and gives the runs' fingerprints."""
    runs = plan_baselines(settings, layout)
    folders = []
    if runs:
        record = open_record(settings.experiment)
        parent = sweep_run(record, settings, digests(layout))
        with workers(settings.launch) as work:
            futures = [train.submit(run_name(run), run, layout, work, record, parent) for run in runs]
            wait(futures)
        folders = [future.result() for future in futures]
    publish_baselines(settings, layout, folders)
    return [folder.fingerprint for folder in folders]


if __name__ == "__main__":
    run_stage(baselines, __doc__ or "")
