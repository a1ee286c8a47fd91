"""The evaluating stage: every translator through one evaluator, then the report."""

import json
from dataclasses import dataclass

import torch

from rdmd import config
from rdmd.domains.pixels import to_uint8
from rdmd.domains.shards import read_split
from rdmd.errors import UserError
from rdmd.evaluation.evaluator import EvaluationTask, identity_row, score, target_row, translate
from rdmd.evaluation.feature_cache import FeatureCache
from rdmd.evaluation.image_task import ImageTask, image_task
from rdmd.evaluation.metrics_file import write_metrics, write_pareto
from rdmd.evaluation.pareto import mark_front
from rdmd.evaluation.point_task import noise_point_task, point_task
from rdmd.evaluation.report.contents import ImageSamples, Panel, PointSamples, ReportSamples
from rdmd.evaluation.report.write import write_report
from rdmd.evaluation.row import Metrics, Row
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.account import account_of, curves_of
from rdmd.pipeline.features import evaluation_device, load_features
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.translators import translators

# Pictures among which the report looks for the best and the worst translations, and points that it draws.
SHOWN_IMAGES = 64
SHOWN_POINTS = 2000


@dataclass(frozen=True)
class Evaluated:
    """A translator's row, and its translations of the sources that the report shows."""

    row: Row
    samples: torch.Tensor


def evaluation_task(settings: config.Settings, layout: Layout) -> EvaluationTask:
    """The test split with what it is judged by. Raises UserError if shards or the feature network are missing."""
    device = evaluation_device(settings)
    source = read_split(layout.shards / "source", "test")
    reference = read_split(layout.shards / "target", "test")
    if settings.preprocess.kind == "points":
        task = noise_point_task if isinstance(settings.domains.source, config.Noise) else point_task
        return task(source.data, reference.data, settings.evaluate, settings.seed, device)
    features, classifier, refused = load_features(settings, layout, device)
    return image_task(
        source.data,
        reference.data,
        features,
        settings.evaluate,
        settings.seed,
        device,
        classifier,
        source.scans,
        reference.scans,
        FeatureCache(layout.feature_cache),
        refused,
    )


def evaluate_one(translator: NamedTranslator, task: EvaluationTask) -> Evaluated:
    """Translate the test sources and measure the result."""
    translations = translate(translator, task)
    run = translator.settings.get("run")
    row = score(translator, translations, task, str(run) if run else None)
    return Evaluated(row, translations.samples[: shown(task)])


def shown(task: EvaluationTask) -> int:
    """How many of the sources, which lie in random order, the report gets to see."""
    return SHOWN_IMAGES if isinstance(task, ImageTask) else SHOWN_POINTS


def reference_rows(task: EvaluationTask, layout: Layout) -> list[Row]:
    """What the numbers are read against: the source as it is, unless it is noise, and the target's own training
    samples."""
    train = read_split(layout.shards / "target", "train")
    target = target_row(task, train.data, train.scans)
    return [target] if task.from_noise else [identity_row(task), target]


def evaluate(settings: config.Settings, layout: Layout) -> Metrics:
    """Evaluate everything one after another and write the report."""
    return evaluate_on(evaluation_task(settings, layout), settings, layout)


def evaluate_on(task: EvaluationTask, settings: config.Settings, layout: Layout) -> Metrics:
    """As `evaluate`, on a task at hand."""
    evaluated = [evaluate_one(translator, task) for translator in translators(settings, layout, task.device)]
    return write_evaluation(settings, layout, task, evaluated)


def write_evaluation(
    settings: config.Settings, layout: Layout, task: EvaluationTask, evaluated: list[Evaluated]
) -> Metrics:
    """Mark the front and write reports/: metrics.json, pareto.csv, the figures and index.html."""
    rows = mark_front([one.row for one in evaluated])
    metrics = Metrics(
        experiment=settings.experiment,
        seed=settings.seed,
        features=task.record(),
        n_source=len(task.source),
        n_reference=len(task.reference),
        rows=[*rows, *reference_rows(task, layout)],
    )
    panels = [Panel(row, one.samples) for row, one in zip(rows, evaluated, strict=True)]
    write_metrics(metrics, layout.metrics)
    write_pareto(metrics, layout.reports / "pareto.csv")
    curves, account = list(curves_of(layout)), account_of(settings, layout)
    write_report(metrics, _samples(task, panels), curves, _validation(layout), account, layout.reports)
    return metrics


def _samples(task: EvaluationTask, panels: list[Panel]) -> ReportSamples:
    source = task.source[: shown(task)]
    if isinstance(task, ImageTask):
        pictures = [Panel(panel.row, to_uint8(panel.samples)) for panel in panels]
        # Noise is shown with two standard deviations from black to grey to white.
        return ImageSamples(to_uint8(source / (2 * source.std())) if task.from_noise else source, pictures)
    exact = None if task.plan is None else task.plan.barycentres[: shown(task)]
    return PointSamples(source, task.reference, exact, panels)


def _validation(layout: Layout) -> dict | None:
    if not layout.validation.exists():
        return None
    try:
        return json.loads(layout.validation.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{layout.validation} is damaged; make it again with `rdmd validate`.") from None
