"""The teacher's flow: `python -m flows.teacher`."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.slots import reserved
from flows.stage import run_stage
from flows.tracking import open_record, sweep_run
from flows.watch import digests, watcher
from rdmd import config
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import teacher_slot, train_teacher


@task(cache_policy=NO_CACHE, persist_result=False)
def train(settings: config.Settings, layout: Layout) -> str:
    """Train, resume or reuse the teacher; gives the run's fingerprint."""
    record = open_record(settings.experiment)
    parent = sweep_run(record, settings, digests(layout))
    with reserved(teacher_slot(settings.launch)):
        return train_teacher(settings, layout, watcher(record, parent), TrainingProcesses()).fingerprint


@flow(name="teacher", validate_parameters=False)
def teacher(settings: config.Settings, layout: Layout) -> str:
    """Denoising score matching on the target; publishes models/teacher."""
    return train(settings, layout)


if __name__ == "__main__":
    run_stage(teacher, __doc__ or "")
