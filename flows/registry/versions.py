"""What a registered version says of itself in tags: its numbers, and what they were measured on.

The numbers are kept to six digits. A version that was registered before evaluations were kept has no `evaluation_*`
tags, and is compared with nothing.
"""

import dataclasses
import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from flows.registry.package import log_model
from flows.tracking.datasets import pair_digest
from flows.tracking.evaluation import tie
from flows.tracking.runs import FINGERPRINT, Record, find_run, git_commit
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.row import GENERATOR, Interval, Metrics, Row
from rdmd.evaluation.selection import Evaluation, evaluation_of, front
from rdmd.files import sha256_of
from rdmd.pipeline.model_card import ModelCard
from rdmd.pipeline.store import asking_for, is_local, weights_of
from rdmd.serving.demo import FrontModel

_NUMBERS = ("fid", "sw2", "cost", "cost_se", "seconds_per_image")
_INTERVALS = ("fid_ci", "sw2_ci")
_EVALUATION = {field.name: f"evaluation_{field.name}" for field in fields(Evaluation)}


def measured(row: Row, evaluation: Evaluation) -> dict[str, str]:
    """The tags of a version for its row and what that was measured on."""
    numbers = {name: getattr(row, name) for name in _NUMBERS}
    for name in _INTERVALS:
        low, high = getattr(row, name) or (None, None)
        numbers |= {f"{name}_low": low, f"{name}_high": high}
    tags = {name: f"{value:.6g}" for name, value in numbers.items() if value is not None}
    return tags | {tag: str(getattr(evaluation, name)) for name, tag in _EVALUATION.items()}


def row_of(version: ModelVersion) -> Row:
    """The version's row as its tags have it."""
    tags = version.tags
    numbers = {name: _number(tags, name) for name in _NUMBERS}
    intervals = {name: _interval(tags, name) for name in _INTERVALS}
    return Row(method=GENERATOR, lam=_number(tags, "lambda"), nfe=int(tags.get("nfe", 1)), **numbers, **intervals)


def evaluation_in_tags(version: ModelVersion) -> Evaluation | None:
    """What the version was measured on; None if it does not say."""
    tags = version.tags
    if not set(_EVALUATION.values()) <= set(tags):
        return None
    return Evaluation(**{field.name: field.type(tags[_EVALUATION[field.name]]) for field in fields(Evaluation)})


def put(client: MlflowClient, version: ModelVersion, row: Row, evaluation: Evaluation) -> ModelVersion:
    """Give the version the tags of an evaluation, in place of those of an earlier one, and its model the metrics."""
    tie(client, version, row, evaluation)
    tags = measured(row, evaluation)
    stale = {*_NUMBERS, *(f"{name}_{end}" for name in _INTERVALS for end in ("low", "high"))} & set(version.tags)
    for key in stale - set(tags):
        client.delete_model_version_tag(version.name, version.version, key)
    return put_tags(client, version, tags)


def put_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> ModelVersion:
    """Set the tags that the version has not yet."""
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)
    return client.get_model_version(version.name, version.version)


def _number(tags: dict[str, str], name: str) -> float | None:
    return float(tags[name]) if name in tags else None


def _interval(tags: dict[str, str], name: str) -> Interval | None:
    low, high = _number(tags, f"{name}_low"), _number(tags, f"{name}_high")
    return None if low is None or high is None else (low, high)


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
    put_tags(record.client, found, tags)
    return put(record.client, found, candidate.row, candidate.evaluation)


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
            before = moves(model, alias)
            move(record.client, model, alias, made.version, before[-1].by if before else "rule")


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


def registered_front(settings: config.Settings) -> list[FrontModel]:
    """The registered generators that were measured on what the champion was, and of them those on the front.

    Where no champion says what it was measured on, the newest version that does takes its place. Raises UserError if
    nothing is registered, or nothing of it says its numbers.
    """
    name = model_name(settings.experiment)
    with asking_for(f"models:/{name}"):
        client = MlflowClient()
        model = client.get_registered_model(name)
        versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda one: -int(one.version))
    measured = [one for one in versions if _has_numbers(one)]
    if not measured:
        raise UserError(
            f"no version of {name} in {mlflow.get_tracking_uri()} says its numbers; register this sweep "
            "with `dvc repro -f register`."
        )
    champion = next((one for one in measured if one.version == model.aliases.get("champion")), measured[0])
    alike = [one for one in measured if evaluation_in_tags(one) == evaluation_in_tags(champion)]
    rows = [row_of(one) for one in alike]
    aliases = {one.version: tuple(alias for alias, at in model.aliases.items() if at == one.version) for one in alike}
    return [
        FrontModel(f"models:/{name}/{one.version}", row, aliases[one.version])
        for one, row, on_front in zip(alike, rows, front(rows, settings.register_.front), strict=True)
        if on_front
    ]


def _has_numbers(version: ModelVersion) -> bool:
    row = row_of(version)
    known = None not in (row.lam, row.cost, row.realism)
    return known and evaluation_in_tags(version) is not None


By = Literal["rule", "hand", "rollback", "elsewhere"]


@dataclass(frozen=True)
class Move:
    """The alias came to `version` at `at` (UTC): by the rule, by hand, by a rollback, or elsewhere (in MLflow's own
    pages, say), which is noticed at the next move."""

    version: str
    by: By
    at: str


def moves(model: RegisteredModel, alias: str) -> list[Move]:
    """All moves of the alias, the oldest first."""
    return [Move(**one) for one in json.loads(model.tags.get(_tag(alias), "[]"))]


def trail(made: list[Move]) -> list[str]:
    """The versions to go back through, the present one last: a rollback takes away what it left."""
    stack: list[str] = []
    for move in made:
        if move.by == "rollback" and move.version in stack:
            while stack[-1] != move.version:
                stack.pop()
        elif not stack or stack[-1] != move.version:
            stack.append(move.version)
    return stack


def set_by_a_person(model: RegisteredModel, alias: str) -> bool:
    """Whether the alias stands where somebody, and not the rule, has put it."""
    made, now = moves(model, alias), model.aliases.get(alias)
    return bool(made) and now is not None and (made[-1].version != now or made[-1].by != "rule")


def move(client: MlflowClient, model: RegisteredModel, alias: str, version: str, by: By) -> None:
    """Point the alias to a version and write it down; nothing happens if the rule confirms where it points.

    The alias moves first: a process killed in between leaves a move that is noticed later, not one that never was.
    """
    made, now = moves(model, alias), model.aliases.get(alias)
    if now is not None and (not made or made[-1].version != now):
        # A store without any history was written by the rule, before histories were kept.
        made.append(Move(now, "elsewhere" if made else "rule", _now()))
    if now != version:
        client.set_registered_model_alias(model.name, alias, version)
    if not made or made[-1].version != version or made[-1].by != by:
        made.append(Move(version, by, _now()))
    text = json.dumps([dataclasses.asdict(one) for one in made])
    if text != model.tags.get(_tag(alias)):
        client.set_registered_model_tag(model.name, _tag(alias), text)


def _tag(alias: str) -> str:
    return f"history.{alias}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
