"""The evaluation on the nodes of a cluster: as many methods at once as there are shares of a node."""

from collections.abc import Iterator

import ray

from flows.cluster import connected
from flows.node import measure_there
from rdmd import config
from rdmd.errors import UserError
from rdmd.pipeline.evaluation import Evaluated
from rdmd.pipeline.layout import Layout


def measured(
    settings: config.Settings, layout: Layout, runner: config.RayRunner, names: list[str]
) -> Iterator[Evaluated]:
    """Every method by its place in `names`, in that order. Raises UserError if the cluster loses one for good."""
    with connected(runner) as cluster:
        job = cluster.evaluation_job(settings, layout)
        futures = [cluster.submit(measure_there, name=name, index=i, job=job) for i, name in enumerate(names)]
        for name, future in zip(names, futures, strict=True):
            try:
                yield future.result()
            except ray.exceptions.RayError as error:
                raise UserError(f"the evaluation of {name} was lost by the cluster ({type(error).__name__}); look at "
                                "`ray status`, and repeat the command.") from error
