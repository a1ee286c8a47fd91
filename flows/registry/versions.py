"""The versions of a registered model: the generator and the evaluation of each, and how the champion was promoted."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from prefect.events import emit_event
from pydantic import TypeAdapter

from flows.registry.package import log_model
from flows.tracking.evaluation import log_evaluation_of_model, numbers_of
from flows.tracking.runs import FINGERPRINT, Record, create_run, find_run, pair_digest, user_name
from rdmd.evaluation.row import GENERATOR, Metrics, Row
from rdmd.evaluation.selection import Evaluation, caution, evaluation_of
from rdmd.evaluation.table import number, realism_name
from rdmd.files import sha256_of
from rdmd.pipeline.model_card import ModelCard
from rdmd.pipeline.store import has_weights, is_local, weights_of

# The numbers of a row that are tags of its version, to six digits.
NUMBERS = (
    "fid",
    "fid_ci_low",
    "fid_ci_high",
    "kid",
    "sw2",
    "sw2_ci_low",
    "sw2_ci_high",
    "cost",
    "cost_se",
    "seconds_per_image",
)
_EVALUATION = {field.name: f"evaluation_{field.name}" for field in fields(Evaluation)}
_WEIGHTS = "sha256"
# The tag with the reason why the evaluation of a version ranks nothing.
CAUTION = "caution"


@dataclass(frozen=True)
class Candidate:
    """A generator of the sweep: its files, its row of the metrics, and a picture of the sweep's translations."""

    folder: Path
    card: ModelCard
    row: Row
    metrics: Metrics
    samples: Path | None = None

    @property
    def evaluation(self) -> Evaluation:
        """The data, features and sizes behind its row."""
        return evaluation_of(self.metrics, self.card.source_digest or "", self.card.target_digest)

    @property
    def caution(self) -> str | None:
        """Why its evaluation ranks nothing; None if it does."""
        return caution(self.metrics)


def model_name(experiment: str) -> str:
    """The name of an experiment's registered model: `rdmd-digits`."""
    return f"rdmd-{experiment}"


def row_of(version: ModelVersion) -> Row:
    """The version's row as its tags have it."""
    tags = version.tags
    found: dict[str, Any] = {name: float(tags[name]) for name in ("lambda", *NUMBERS) if name in tags}
    for metric in ("fid", "sw2"):
        ends = [found.pop(f"{metric}_ci_{end}", None) for end in ("low", "high")]
        found[f"{metric}_ci"] = None if None in ends else ends
    return Row(method=GENERATOR, nfe=int(tags.get("nfe", 1)), **found)


def evaluation_in_tags(version: ModelVersion) -> Evaluation | None:
    """The evaluation behind the version's numbers; None if its tags lack a part of it."""
    if not set(_EVALUATION.values()) <= set(version.tags):
        return None
    return TypeAdapter(Evaluation).validate_python({name: version.tags[tag] for name, tag in _EVALUATION.items()})


def tag_evaluation(client: MlflowClient, version: ModelVersion, candidate: Candidate) -> ModelVersion:
    """Replace the version's tags and description of an earlier evaluation, and log the numbers to its model."""
    row, evaluation = candidate.row, candidate.evaluation
    log_evaluation_of_model(client, version, row, evaluation)
    tags = {name: f"{value:.6g}" for name, value in numbers_of(row).items() if name in NUMBERS}
    tags |= {tag: str(getattr(evaluation, name)) for name, tag in _EVALUATION.items()}
    if candidate.caution is not None:
        tags[CAUTION] = candidate.caution
    for name in {*NUMBERS, CAUTION} & set(version.tags) - set(tags):
        client.delete_model_version_tag(version.name, version.version, name)
    description = (
        f"One-step translator, lambda {candidate.card.lam:g}: {realism_name(row)} {number(row.realism)}, cost "
        f"{number(row.cost)} ({evaluation.short})."
    )
    if candidate.caution is not None:
        description += f" The ranking means nothing, since {candidate.caution}."
    if version.description != description:
        client.update_model_version(version.name, version.version, description)
    return _set_tags(client, version, tags)


def _set_tags(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str]) -> ModelVersion:
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)
    return client.get_model_version(version.name, version.version)


def ensure_model(record: Record, name: str, description: str) -> None:
    """Make the registered model if there is none."""
    try:
        record.client.get_registered_model(name)
    except MlflowException:
        record.client.create_registered_model(name, description=description)


def find_version(record: Record, name: str, card: ModelCard) -> ModelVersion | None:
    """The newest version with the weights and the lambda of `card`."""
    wanted = f"tags.`{_WEIGHTS}` = '{card.sha256}' AND tags.`lambda` = '{card.lam:g}'"
    found = record.client.search_model_versions(f"name = '{name}' AND {wanted}")
    return max(found, key=lambda version: int(version.version)) if found else None


def register_generator(record: Record, name: str, candidate: Candidate) -> ModelVersion:
    """The version of the candidate's weights and lambda, tagged with the candidate's evaluation.

    It is made if there is none, or if its weights are lost or damaged: then the aliases of the lost one move to it.
    """
    card, client = candidate.card, record.client
    known = find_version(record, name, card)
    version = known if known is not None and _is_readable(client, known) else None
    if version is None:
        run = _training_run(record, card)
        with mlflow.start_run(run_id=run.info.run_id, log_system_metrics=False):
            last = int(run.data.params.get("distill.steps", 1))
            source = log_model(name, candidate.folder, card, candidate.row, candidate.metrics, last, candidate.samples)
        # Registering is no part of the time that the run took.
        client.set_terminated(run.info.run_id, run.info.status, run.info.end_time)
        # A server refuses a source that it cannot trace to its model.
        model_id = source.removeprefix("models:/")
        version = client.create_model_version(
            name,
            source,
            run.info.run_id,
            # MLflow shows the creator of a run, and of a version only its run, which somebody else may have trained.
            tags={
                _WEIGHTS: card.sha256,
                "lambda": f"{card.lam:g}",
                "registered_by": user_name(),
                # Of its training, which a later evaluation does not change.
                "git_commit": run.data.tags.get("git_commit", "unknown"),
            },
            model_id=model_id,
        )
        _share_weights(client, version)
        if known is not None:
            _replace_lost_version(client, known, version)
    tags = {
        "nfe": str(candidate.row.nfe),
        "data_digest": pair_digest(card.source_digest or "", card.target_digest),
    }
    return tag_evaluation(client, _set_tags(client, version, tags), candidate)


def _share_weights(client: MlflowClient, made: ModelVersion) -> None:
    """Let all versions of one generator, which differ in their default lambda, hold the weights' file of the version
    `made`, on this machine."""
    every = client.search_model_versions(f"name = '{made.name}' AND tags.`{_WEIGHTS}` = '{made.tags[_WEIGHTS]}'")
    places = {version.version: _local_location(client, version) for version in every}
    files = {version: weights_of(place) for version, place in places.items() if place is not None}
    own = files.pop(made.version, None)
    for other in files.values():
        if own is not None and other is not None and not other.samefile(own):
            link = other.with_suffix(".link")
            # Some file systems have no links; the copy stays then.
            with contextlib.suppress(OSError):
                link.unlink(missing_ok=True)
                link.hardlink_to(own)
                link.replace(other)


def _local_location(client: MlflowClient, version: ModelVersion) -> str | None:
    """The folder of the version's artifacts on this machine; None on a server."""
    location = client.get_model_version_download_uri(version.name, version.version)
    if location.startswith("models:/"):
        location = client.get_logged_model(location.removeprefix("models:/")).artifact_location
    return location if is_local(location) else None


def _is_readable(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether the weights are at the version's location and, on this machine, have its hash."""
    location = _local_location(client, version)
    if location is None:
        return has_weights(f"models:/{version.name}/{version.version}")
    weights = weights_of(location)
    return weights is not None and sha256_of(weights) == version.tags[_WEIGHTS]


def measured_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """The versions with numbers and, on this machine, weights; the newest first, and of equal weights and lambda the
    newest."""
    found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    newest = {
        (version.tags.get(_WEIGHTS), version.tags.get("lambda")): version for version in found if _has_numbers(version)
    }
    locations = {key: _local_location(client, version) for key, version in newest.items()}
    held = [version for key, version in newest.items() if (at := locations[key]) is None or weights_of(at) is not None]
    return sorted(held, key=lambda version: -int(version.version))


def _replace_lost_version(client: MlflowClient, lost: ModelVersion, made: ModelVersion) -> None:
    """Move the aliases of a version without weights, and its place in the champion's tags, to another version."""
    model = client.get_registered_model(lost.name)
    old, new = str(lost.version), str(made.version)
    promotion = promotion_of(model)
    for alias, version in model.aliases.items():
        if str(version) == old:
            client.set_registered_model_alias(model.name, alias, new)
    if promotion is not None:
        version, *before = (new if number == old else number for number in (promotion.version, *promotion.before))
        _write_promotion(client, model, Promotion(version, promotion.by, promotion.at, tuple(before)))


def _training_run(record: Record, card: ModelCard) -> Run:
    """The MLflow run that trained the generator, or a new one in its place where training left no record."""
    found = find_run(record, FINGERPRINT, card.run)
    if found is not None:
        return found
    tags = {FINGERPRINT: card.run, "rebuilt": "from files"}
    run = create_run(record, f"lambda-{card.lam:g}", tags)
    record.client.set_terminated(run.info.run_id)
    return record.client.get_run(run.info.run_id)


CHAMPION = "champion"
# `Promotion.by` of the rule in params.yaml, and of an alias that was set outside this project's commands.
RULE = "rule"
MLFLOW_PAGES = "somebody in MLflow's pages"
_KEPT_CHAMPIONS = 50


@dataclass(frozen=True)
class Promotion:
    """How the present champion was promoted.

    by: `RULE`, `MLFLOW_PAGES` or the name of a user. at: UTC; empty where it is not known. before: the versions that
    were the champion earlier, the latest first, which `rdmd registry rollback` goes back through.
    """

    version: str
    by: str
    at: str
    before: tuple[str, ...]


def promotion_of(model: RegisteredModel) -> Promotion | None:
    """The promotion of the champion by the alias and the tags of the registered model; None without a champion."""
    now, tags = model.aliases.get(CHAMPION), model.tags
    if now is None:
        return None
    recorded, before = tags.get("champion_version"), tuple(tags.get("champion_before", "").split())
    if recorded is None:
        return Promotion(str(now), RULE, "", ())
    if recorded != str(now):
        return Promotion(str(now), MLFLOW_PAGES, "", (recorded, *before))
    return Promotion(recorded, tags["champion_by"], tags["champion_at"], before)


def promote_version(client: MlflowClient, model: RegisteredModel, version: str, by: str) -> None:
    """Make a version the champion, and note by whom in the model's tags. Repeating a promotion changes nothing."""
    last = promotion_of(model)
    if last is not None and (last.version, last.by) == (version, by):
        return
    before: tuple[str, ...] = ()
    if last is not None:
        before = last.before if last.version == version else (last.version, *last.before)
    client.set_registered_model_alias(model.name, CHAMPION, version)
    _write_promotion(client, model, Promotion(version, by, _now(), before))
    _announce(model.name, version, by)


def roll_back(client: MlflowClient, model: RegisteredModel, existing: set[str]) -> Promotion | None:
    """Make the latest earlier champion among the `existing` versions the champion again; None if there is none."""
    last = promotion_of(model)
    earlier = (
        [] if last is None else [number for number in last.before if number in existing and number != last.version]
    )
    if last is None or not earlier:
        return None
    before = last.before[last.before.index(earlier[0]) + 1 :]
    promotion = Promotion(earlier[0], user_name(), _now(), before)
    client.set_registered_model_alias(model.name, CHAMPION, promotion.version)
    _write_promotion(client, model, promotion)
    _announce(model.name, promotion.version, promotion.by)
    return promotion


def _announce(name: str, version: str, by: str) -> None:
    """Tell the Prefect server of PREFECT_API_URL, if any, of a new champion; automations.yaml passes it on."""
    if os.environ.get("PREFECT_API_URL"):
        emit_event(
            "rdmd.champion",
            resource={"prefect.resource.id": f"rdmd.model.{name}", "prefect.resource.name": name},
            payload={"text": f"models:/{name}@{CHAMPION} is version {version}, promoted by {by}"},
        )


def _write_promotion(client: MlflowClient, model: RegisteredModel, promotion: Promotion) -> None:
    tags = {
        "champion_by": promotion.by,
        "champion_at": promotion.at,
        "champion_before": " ".join(promotion.before[:_KEPT_CHAMPIONS]),
        # The last one: a process that is killed before it leaves a champion that nobody recorded.
        "champion_version": promotion.version,
    }
    for key, value in tags.items():
        if model.tags.get(key) != value:
            client.set_registered_model_tag(model.name, key, value)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _has_numbers(version: ModelVersion) -> bool:
    row = row_of(version)
    return None not in (row.lam, row.cost, row.realism) and evaluation_in_tags(version) is not None
