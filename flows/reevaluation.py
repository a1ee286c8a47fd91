"""A registered version measured on today's task, by the same evaluator as the sweep."""

import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows import version_tags
from rdmd import config
from rdmd.domains.manifest import read_manifest
from rdmd.errors import UserError
from rdmd.evaluation.evaluator import EvaluationTask, evaluate_translator
from rdmd.evaluation.row import GENERATOR
from rdmd.evaluation.translator import NamedTranslator
from rdmd.pipeline.evaluation import evaluation_task
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_source import open_generator
from rdmd.selection.identity import Evaluation, differences, features_name


def todays_task(settings: config.Settings, layout: Layout, measured: Evaluation) -> EvaluationTask:
    """The task of params.yaml and data/shards. Raises UserError if it is not the one behind reports/metrics.json."""
    task = evaluation_task(settings, layout)
    today = Evaluation(
        features=features_name(task.record()),
        source_digest=read_manifest(layout.shards / "source").digest,
        target_digest=read_manifest(layout.shards / "target").digest,
        n_source=len(task.source),
        n_reference=len(task.reference),
        seed=settings.seed,
    )
    found = differences(measured, today)
    if found:
        raise UserError(f"{layout.metrics} was measured on another {', '.join(found)} than params.yaml and "
                        f"{layout.shards} describe; bring it up to date with `dvc repro`.")
    return task


def reevaluate(
    client: MlflowClient, version: ModelVersion, task: EvaluationTask, evaluation: Evaluation
) -> ModelVersion:
    """Translate and score with the version's weights, and tag it with the result.

    Raises UserError if it translates samples of another shape than the task's.
    """
    uri = f"models:/{version.name}/{version.version}"
    generator, shape, _ = open_generator(uri, task.device)
    given = tuple(task.source.shape[1:])
    if shape != given:
        raise UserError(f"{uri} translates samples of shape {_by(shape)} and today's have {_by(given)}, so it cannot "
                        "be evaluated on them; promote a version by its number, which compares nothing.")
    before = version_tags.row_of(version)
    row = evaluate_translator(
        NamedTranslator(lambda source, rng: _translated(generator, source), GENERATOR, nfe=1, lam=before.lam), task
    )
    return version_tags.put(client, version, row, evaluation)


@torch.no_grad()
def _translated(generator: torch.nn.Module, source: torch.Tensor) -> torch.Tensor:
    return generator(source)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
