"""The flows that train, one task for every run: `python -m flows.stages.training teacher|distill|baselines`."""

from prefect import flow

from flows.backends import backend
from flows.stages.stage import run_stage
from rdmd import config
from rdmd.pipeline.jobs import plan_generators
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import alone, train_baselines_on, train_generators_on, train_teacher_on


@flow(name="teacher", flow_run_name="{settings.experiment} teacher", validate_parameters=False)
def teacher(settings: config.Settings, layout: Layout) -> str:
    """Denoising score matching on the target; publishes models/teacher and gives the run's fingerprint."""
    with backend(alone(settings), layout) as where:
        return train_teacher_on(where, settings, layout).fingerprint


@flow(name="distill", flow_run_name="{settings.experiment} distill", validate_parameters=False)
def distill(settings: config.Settings, layout: Layout) -> list[str]:
    """RDMD with lambda as an input, or for every lambda of a list; publishes models/generators and gives the runs'
    fingerprints."""
    # A missing input is reported before anything is recorded.
    plan_generators(settings, layout)
    with backend(settings, layout) as where:
        return [folder.fingerprint for folder in train_generators_on(where, settings, layout)]


@flow(name="baselines", flow_run_name="{settings.experiment} baselines", validate_parameters=False)
def baselines(settings: config.Settings, layout: Layout) -> list[str]:
    """The source's teacher, the domain classifier and the neural OT maps, as far as baselines are configured that need
    them; publishes models/baselines and gives the runs' fingerprints."""
    with backend(settings, layout) as where:
        return [folder.fingerprint for folder in train_baselines_on(where, settings, layout)]


if __name__ == "__main__":
    run_stage(__doc__ or "", teacher, distill, baselines)
