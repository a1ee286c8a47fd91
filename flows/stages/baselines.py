"""The flow of what baselines need trained: `python -m flows.stages.baselines`. One task for every run."""

from prefect import flow

from flows.backends import backend
from flows.stages.stage import run_stage
from rdmd import config
from rdmd.pipeline.curves import write_curves
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import train_baselines_on


@flow(name="baselines", flow_run_name="{settings.experiment} baselines", validate_parameters=False)
def baselines(settings: config.Settings, layout: Layout) -> list[str]:
    """The source's teacher, the domain classifier and the neural OT maps, as far as baselines are configured that need
    them; publishes models/baselines and gives the runs' fingerprints."""
    with backend(settings, layout) as where:
        folders = train_baselines_on(where, settings, layout)
    write_curves(layout, layout.baselines)
    return [folder.fingerprint for folder in folders]


if __name__ == "__main__":
    run_stage(baselines, __doc__ or "")
