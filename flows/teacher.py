"""The teacher's flow: `python -m flows.teacher`."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.stage import run_stage
from flows.tracking import open_record, sweep_run
from flows.watch import digests, watcher
from flows.workers import workers
from rdmd import config
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.plan import plan_teacher
from rdmd.pipeline.training import publish_teacher, train_one


@task(cache_policy=NO_CACHE, persist_result=False)
def train(settings: config.Settings, layout: Layout) -> str:
    """Train, resume or reuse the teacher; gives the run's fingerprint."""
    record = open_record(settings.experiment)
    parent = sweep_run(record, settings, digests(layout))
    # It trains alone, so all cores are its own unless `launch.threads` says otherwise.
    with workers(settings.launch.model_copy(update={"parallel": 1})) as work:
        watch = watcher(record, parent, work)
        folder = train_one(plan_teacher(settings, layout), layout, work.slots, watch, work.trainer)
    publish_teacher(settings, layout, folder)
    return folder.fingerprint


@flow(name="teacher", validate_parameters=False)
def teacher(settings: config.Settings, layout: Layout) -> str:
    """Denoising score matching on the target; publishes models/teacher."""
    return train(settings, layout)


if __name__ == "__main__":
    run_stage(teacher, __doc__ or "")
