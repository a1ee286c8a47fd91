"""The stage `evaluate`: every translator goes through one evaluator, then the report is written."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rdmd import config
from rdmd.data.shards import LoadedDomain, read_split
from rdmd.data.transforms import as_rgb, to_uint8
from rdmd.errors import UserError
from rdmd.evaluation.classifier import train_attributes
from rdmd.evaluation.evaluator import NamedTranslator, counterpart_row, identity_row, score, target_row, translate
from rdmd.evaluation.paired import PairedTruth, counterparts
from rdmd.evaluation.row import Metrics, Row
from rdmd.evaluation.selection import mark_front
from rdmd.evaluation.table import write_metrics, write_pareto, write_summary
from rdmd.evaluation.task import EvaluationTask, ImageFeatures, ImageTask, PointTask, image_task, point_task
from rdmd.pipeline.features import evaluation_device, load_features
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.provenance import provenance_of
from rdmd.pipeline.translators import translators
from rdmd.report.page import write_report
from rdmd.report.samples import Samples

# Images among which the report finds the least and the most changed ones, and points that it draws.
SHOWN_IMAGES = 64
SHOWN_POINTS = 2000


@dataclass(frozen=True)
class Evaluated:
    """A translator's row, and its translations of the sources that the report shows."""

    row: Row
    samples: Tensor


def evaluate(settings: config.Settings, layout: Layout) -> Metrics:
    """Evaluate everything one after another and write the report."""
    return evaluate_on(evaluation_task(settings, layout), settings, layout)


def evaluate_on(task: EvaluationTask, settings: config.Settings, layout: Layout) -> Metrics:
    """As `evaluate`, on an existing task."""
    evaluated = [evaluate_one(translator, task) for translator in translators(settings, layout, task.device)]
    return write_evaluation(settings, layout, task, evaluated)


def evaluation_task(settings: config.Settings, layout: Layout) -> EvaluationTask:
    """The test split with its feature network. Raises UserError if shards or the feature network are missing.

    Prints the metrics for which the split is too small.
    """
    device, seed, evaluate = evaluation_device(settings), settings.seed, settings.evaluate
    source = read_split(layout.shards / "source", "test")
    reference = read_split(layout.shards / "target", "test")
    task: EvaluationTask
    if settings.preprocess.kind == "points":
        from_noise = isinstance(settings.domains.source, config.Noise)
        task = point_task(source.data, reference.data, evaluate, seed, device, from_noise)
    else:
        features = load_features(settings, layout, device)
        truth = _truth(source, reference, features, settings, layout)
        task = image_task(
            source.data, reference.data, features, evaluate, seed, device, source.scans, reference.scans, truth
        )
    left_out = task.left_out()
    if left_out:
        print(f"left out of the table: {left_out}", file=sys.stderr)
    return task


def _truth(
    source: LoadedDomain, target: LoadedDomain, features: ImageFeatures, settings: config.Settings, layout: Layout
) -> PairedTruth | None:
    """The true counterparts of all test sources, with a classifier that is trained on the target's training images.

    None unless the test split holds a counterpart for every source.
    """
    known = target.known()
    places = counterparts(source.known(), known)
    if places is None or known is None:
        if isinstance(settings.domains.source, config.ImageFolder) and settings.domains.source.pairs:
            print(
                "left out of the table: the distance to true counterparts, because not every test image of the source "
                "has one of its name in the target (domains.source.pairs, domains.target.pairs)",
                file=sys.stderr,
            )
        return None
    device, train = evaluation_device(settings), read_split(layout.shards / "target", "train")
    learned = train.known()
    classifier = None if learned is None else train_attributes(train.data, learned, settings.seed, device)
    truth = PairedTruth(
        images=target.data,
        places=torch.arange(len(target.data)),
        features=features.of(target.data, settings.evaluate.batch, device),
        regions=None if known.regions is None else torch.from_numpy(known.regions),
        attributes=None if classifier is None else classifier.indices(known),
        classifier=classifier,
    )
    return truth.at(torch.tensor(places))


def evaluate_one(translator: NamedTranslator, task: EvaluationTask) -> Evaluated:
    """Translate the test sources and score the result."""
    translations = translate(translator, task)
    run = translator.settings.get("run")
    row = score(translator, translations, task, str(run) if run else None)
    return Evaluated(row, translations.samples[: shown(task)])


def shown(task: EvaluationTask) -> int:
    """The number of sources, which lie in random order, that the report gets."""
    return SHOWN_IMAGES if isinstance(task, ImageTask) else SHOWN_POINTS


def write_evaluation(
    settings: config.Settings, layout: Layout, task: EvaluationTask, evaluated: list[Evaluated]
) -> Metrics:
    """Mark the front, add the rows of references, and write the files of reports/."""
    rows = mark_front([each.row for each in evaluated])
    train = read_split(layout.shards / "target", "train")
    references = [] if task.from_noise else [identity_row(task), counterpart_row(task)]
    metrics = Metrics(
        experiment=settings.experiment,
        seed=settings.seed,
        features=task.record(),
        n_source=len(task.source),
        n_reference=len(task.reference),
        rows=[*rows, *filter(None, references), target_row(task, train.data, train.scans)],
    )
    write_metrics(metrics, layout.metrics)
    write_summary(metrics, layout.summary)
    write_pareto(metrics, layout.reports / "pareto.csv")
    translations = [(row, each.samples) for row, each in zip(rows, evaluated, strict=True)]
    samples, provenance = _samples(task, translations), provenance_of(settings, layout)
    write_report(metrics, samples, provenance, _validation(layout), layout.reports)
    return metrics


def _samples(task: EvaluationTask, translations: list[tuple[Row, Tensor]]) -> Samples:
    source = task.source[: shown(task)]
    if isinstance(task, PointTask):
        exact = None if task.plan is None else task.plan.barycentres[: shown(task)]
        return Samples(source, translations, task.reference, exact)
    # Noise is shown with two standard deviations from black to grey to white.
    images = as_rgb(to_uint8(source / (2 * source.std())) if task.from_noise else source)
    truth = task.truth if isinstance(task, ImageTask) else None
    counterparts = None if truth is None else as_rgb(truth.images[: shown(task)])
    return Samples(images, [(row, as_rgb(to_uint8(each))) for row, each in translations], counterparts=counterparts)


def _validation(layout: Layout) -> dict[str, Any] | None:
    if not layout.validation.exists():
        return None
    try:
        return json.loads(layout.validation.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{layout.validation} is damaged; make it again with `rdmd validate`.") from None
