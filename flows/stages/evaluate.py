"""The evaluating flow: `python -m flows.stages.evaluate`. One task for every generator and baseline."""

import sys

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from tqdm import tqdm

from flows.artifacts import show_metrics
from flows.backends import backend
from flows.stages.stage import run_stage
from flows.tracking.evaluation import record_evaluation
from flows.tracking.runs import open_record, sweep_run
from flows.tracking.training import digests
from rdmd import config
from rdmd.evaluation.row import Metrics
from rdmd.evaluation.task import EvaluationTask
from rdmd.pipeline.evaluation import Evaluated, evaluation_task, write_evaluation
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.translators import translators


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="write the report")
def report(settings: config.Settings, layout: Layout, on: EvaluationTask, evaluated: list[Evaluated]) -> Metrics:
    """Write reports/, and record it in MLflow and as Prefect's artifacts."""
    metrics = write_evaluation(settings, layout, on, evaluated)
    record = open_record(settings.experiment)
    record_evaluation(record, sweep_run(record, settings, digests(layout)), metrics, layout)
    show_metrics(settings, metrics, "metrics")
    return metrics


@flow(name="evaluate", flow_run_name="{settings.experiment} evaluate", validate_parameters=False)
def evaluate(settings: config.Settings, layout: Layout) -> Metrics:
    """Every method on the test split, by the same evaluator; writes reports/."""
    on = evaluation_task(settings, layout)
    methods = list(translators(settings, layout, on.device))
    with backend(settings, layout) as where:
        results = where.evaluate(methods, on)
        evaluated = list(
            tqdm(results, total=len(methods), desc="evaluate", unit="method", disable=not sys.stderr.isatty())
        )
    return report(settings, layout, on, evaluated)


if __name__ == "__main__":
    run_stage(__doc__ or "", evaluate)
