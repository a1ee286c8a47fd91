"""The evaluating flow: `python -m flows.stages.evaluate`. One task for every generator and baseline."""

import sys

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from tqdm import tqdm

from flows.backends import backend
from flows.stages.stage import run_stage
from flows.tracking.evaluation import record_evaluation
from flows.tracking.runs import open_record, sweep_run
from flows.tracking.training import digests
from rdmd import config
from rdmd.evaluation.row import Metrics
from rdmd.evaluation.selection import registered
from rdmd.evaluation.table import format_table, row_labels
from rdmd.evaluation.task import EvaluationTask
from rdmd.pipeline.evaluation import Evaluated, evaluation_task, write_evaluation
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.translators import translators


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="write the report")
def report(settings: config.Settings, layout: Layout, judged_on: EvaluationTask, evaluated: list[Evaluated]) -> Metrics:
    """Write reports/ and record it in MLflow and among Prefect's artifacts."""
    metrics = write_evaluation(settings, layout, judged_on, evaluated)
    record = open_record(settings.experiment)
    record_evaluation(record, sweep_run(record, settings, digests(layout)), metrics, layout)
    labels, flags = row_labels(metrics.rows), registered(metrics.rows, settings.register_.front)
    create_table_artifact(
        [
            {"method": label, "FID": row.fid, "SW2": row.sw2, "cost": row.cost, "NFE": row.nfe, "registered": flag}
            for label, row, flag in zip(labels, metrics.rows, flags, strict=True)
        ],
        key="metrics",
        description=f"{settings.experiment}: {metrics.n_source} sources, {metrics.n_reference} references",
    )
    create_markdown_artifact(f"```\n{format_table(metrics, settings.register_.front)}\n```", key="metrics-text")
    return metrics


@flow(name="evaluate", validate_parameters=False)
def evaluate(settings: config.Settings, layout: Layout) -> Metrics:
    """Every method on the test split, by the same evaluator; writes reports/."""
    judged_on = evaluation_task(settings, layout)
    methods = list(translators(settings, layout, judged_on.device))
    with backend(settings, layout) as where:
        results = where.evaluate(methods, judged_on)
        evaluated = list(
            tqdm(results, total=len(methods), desc="evaluate", unit="method", disable=not sys.stderr.isatty())
        )
    return report(settings, layout, judged_on, evaluated)


if __name__ == "__main__":
    run_stage(evaluate, __doc__ or "")
