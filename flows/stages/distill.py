"""The generators' flow: `python -m flows.stages.distill`. One task for every generator."""

from prefect import flow

from flows.backends import backend
from flows.stages.stage import run_stage
from rdmd import config
from rdmd.pipeline.curves import write_curves
from rdmd.pipeline.jobs import plan_generators
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import train_generators_on


@flow(name="distill", flow_run_name="{settings.experiment} distill", validate_parameters=False)
def distill(settings: config.Settings, layout: Layout) -> list[str]:
    """RDMD with lambda as an input, or for every lambda of a list; publishes models/generators and gives the runs'
    fingerprints."""
    # A missing input is reported before anything is recorded.
    plan_generators(settings, layout)
    with backend(settings, layout) as where:
        folders = train_generators_on(where, settings, layout)
    write_curves(layout, layout.generators)
    return [folder.fingerprint for folder in folders]


if __name__ == "__main__":
    run_stage(distill, __doc__ or "")
