"""The model registry: a version for each generator on the front, its tags, and the aliases.

Everything is rebuilt from files: `models/generators` and `reports/metrics.json`. A version is known by the SHA-256 of
its weights, so registering twice adds nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from flows import alias_history, version_tags
from flows.datasets import pair_digest
from flows.handoff import log_model
from flows.tracking import FINGERPRINT, Record, find_run, git_commit
from rdmd.evaluation.row import Metrics, Row
from rdmd.files import sha256_of
from rdmd.pipeline.model_card import ModelCard
from rdmd.pipeline.store import is_local, weights_of
from rdmd.selection.identity import Evaluation, evaluation_of

WEIGHTS = "sha256"


@dataclass(frozen=True)
class Candidate:
    """A generator of the sweep: its files, and its row of the metrics."""

    folder: Path
    card: ModelCard
    row: Row
    metrics: Metrics

    @property
    def evaluation(self) -> Evaluation:
        """What its row was measured on."""
        return evaluation_of(self.metrics, self.card.source_digest or "", self.card.target_digest)


def model_name(experiment: str) -> str:
    """`rdmd-digits`."""
    return f"rdmd-{experiment}"


def numbers(row: Row) -> dict[str, float]:
    """The realism and cost that the registry shows: FID for pictures, SW2 for points."""
    known = {"fid": row.fid, "sw2": row.sw2, "cost": row.cost}
    return {key: value for key, value in known.items() if value is not None}


def register(record: Record, name: str, candidate: Candidate) -> ModelVersion:
    """The version that holds the candidate's weights; its tags are those of this evaluation.

    It is made if there is none, or if its weights are lost or damaged: then the aliases of the lost one move to it.
    """
    known = find(record, name, candidate.card.sha256)
    found = known if known is not None and readable(record, known) else None
    if found is None:
        run = _run_of(record, candidate.card)
        with mlflow.start_run(run_id=run.info.run_id, log_system_metrics=False):
            last = int(run.data.params.get("distill.steps", 1))
            source = log_model(name, candidate.folder, candidate.card, candidate.row, candidate.metrics, last)
        # Registering is no part of the time that the run took.
        record.client.set_terminated(run.info.run_id, run.info.status, run.info.end_time)
        found = record.client.create_model_version(
            name, source, run.info.run_id, tags={WEIGHTS: candidate.card.sha256},
            # A server refuses a source that it cannot trace to its model.
            model_id=source.removeprefix("models:/"),
        )  # fmt: skip
        if known is not None:
            _hand_over(record, known, found)
    tags = {
        "lambda": f"{candidate.card.lam:g}",
        "nfe": str(candidate.row.nfe),
        "data_digest": pair_digest(candidate.card.source_digest, candidate.card.target_digest),
        "git_commit": git_commit(),
    }
    version_tags.put_tags(record.client, found, tags)
    return version_tags.put(record.client, found, candidate.row, candidate.evaluation)


def readable(record: Record, version: ModelVersion) -> bool:
    """Whether the weights of a version are where the registry says, and are those that it says.

    On another machine than this one only whether any artifact is there.
    """
    location = record.client.get_model_version_download_uri(version.name, version.version)
    if location.startswith("models:/"):
        location = record.client.get_logged_model(location.removeprefix("models:/")).artifact_location
    if not is_local(location):
        return bool(mlflow.artifacts.list_artifacts(artifact_uri=f"models:/{version.name}/{version.version}"))
    weights = weights_of(location)
    return weights is not None and sha256_of(weights) == version.tags[WEIGHTS]


def _hand_over(record: Record, lost: ModelVersion, made: ModelVersion) -> None:
    """Move the aliases of a lost version to the one that holds the same weights, set by whom they were."""
    model = record.client.get_registered_model(lost.name)
    for alias, version in model.aliases.items():
        if int(version) == int(lost.version):
            moves = alias_history.moves(model, alias)
            alias_history.move(record.client, model, alias, made.version, moves[-1].by if moves else "rule")


def ensure_model(record: Record, name: str, description: str) -> None:
    """Make the registered model if there is none."""
    try:
        record.client.get_registered_model(name)
    except MlflowException:
        record.client.create_registered_model(name, description=description)


def set_aliases(record: Record, name: str, aliases: dict[str, ModelVersion]) -> None:
    """Point every alias to its version."""
    for alias, chosen in aliases.items():
        record.client.set_registered_model_alias(name, alias, chosen.version)


def find(record: Record, name: str, sha256: str) -> ModelVersion | None:
    """The newest version that holds the weights of this hash."""
    found = record.client.search_model_versions(f"name = '{name}' AND tags.`{WEIGHTS}` = '{sha256}'")
    return max(found, key=lambda one: int(one.version)) if found else None


def _run_of(record: Record, card: ModelCard) -> Run:
    """The MLflow run that trained the generator, or a new one that stands for it where training left no record."""
    found = find_run(record, FINGERPRINT, card.run)
    if found is not None:
        return found
    run = record.client.create_run(
        record.experiment_id, run_name=f"lambda-{card.lam:g}", tags={FINGERPRINT: card.run, "rebuilt": "from files"}
    )
    record.client.set_terminated(run.info.run_id)
    return record.client.get_run(run.info.run_id)
