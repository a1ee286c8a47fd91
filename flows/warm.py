"""A warm process for the length of `make repro`: the stages and trainings are copies of it, so that torch, Prefect and
MLflow are imported once and not by each of fifteen processes. See `rdmd.warm`."""

import contextlib
from collections.abc import Iterator

from flows.environment import ROOT
from rdmd.warm.machine import without_gpu
from rdmd.warm.start import warm_process

# Set to anything, it has every stage and training import for itself.
OFF = "RDMD_COLD"

# What stages and trainings import, apart from the modules that they are and from what one of them alone needs: the
# first stages of a pipeline, and then the others, in the order in which they come.
FIRST = (
    "threadpoolctl",
    "torch",
    "webdataset",
    "rdmd.commands",
    "rdmd.domains.preprocess",
    "sklearn.datasets",
)
LATER = (
    # Parts of Great Expectations, each by itself, since a stage that asks waits for the import at hand.
    "sqlalchemy.orm",
    "pyparsing",
    "altair",
    "great_expectations",
    "rdmd.domains.validation",
    "rdmd.pipeline.features",
    "prefect.main",
    "prefect.utilities.visualization",
    "pydantic.v1",
    "fastapi",
    "mlflow.pyfunc",
    # Imported where a flow first asks MLflow, each time.
    "mlflow.store.tracking.sqlalchemy_store",
    "sqlalchemy.dialects.sqlite",
    "accelerate",
    "sympy",
    "torch.distributed.tensor",
    "torch._inductor.config",
    "rdmd.pipeline.baselines",
    "rdmd.pipeline.training",
    "rdmd.pipeline.translators",
    "rdmd.training.distill",
    "rdmd.training.domain_classifier",
    "rdmd.training.loop",
    "rdmd.training.neural_ot",
    "rdmd.training.teacher",
    "flows.stage",
    "flows.watch",
    "flows.backends.local",
    "matplotlib.pyplot",
    "skimage.metrics",
    "flows.recorded_evaluation",
    "flows.registered_sweep",
)


@contextlib.contextmanager
def warm_stages(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run one that starts in `environment`; gives the environment in which stages use it.

    On a machine with a GPU, and where RDMD_COLD is set, there is none, and the environment stays as it is.
    """
    if not without_gpu() or environment.get(OFF):
        yield environment
        return
    # DVC names the project to every stage, and imports read it.
    started_in = environment | {"DVC_ROOT": str(ROOT)}
    with warm_process(FIRST, ROOT, started_in, ROOT / ".prefect" / "warm.log", LATER) as found:
        yield environment | found
