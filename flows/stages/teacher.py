"""The teacher's flow: `python -m flows.stages.teacher`."""

from prefect import flow

from flows.backends import backend
from flows.stages.stage import run_stage
from rdmd import config
from rdmd.pipeline.curves import write_curves
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import alone, train_teacher_on


@flow(name="teacher", flow_run_name="{settings.experiment} teacher", validate_parameters=False)
def teacher(settings: config.Settings, layout: Layout) -> str:
    """Denoising score matching on the target; publishes models/teacher and gives the run's fingerprint."""
    with backend(alone(settings), layout) as where:
        folder = train_teacher_on(where, settings, layout)
    write_curves(layout, layout.teacher)
    return folder.fingerprint


if __name__ == "__main__":
    run_stage(teacher, __doc__ or "")
