"""What a registered version says of itself in tags: its numbers, and what they were measured on.

The numbers are kept to six digits. A version that was registered before evaluations were kept has no `evaluation_*`
tags, and is compared with nothing.
"""

from dataclasses import fields

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.model_metrics import tie
from rdmd.evaluation.row import GENERATOR, Interval, Row
from rdmd.selection.identity import Evaluation

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


def evaluation_of(version: ModelVersion) -> Evaluation | None:
    """What the version was measured on; None if it does not say."""
    tags = version.tags
    if not set(_EVALUATION.values()) <= set(tags):
        return None
    return Evaluation(**{
        field.name: field.type(tags[_EVALUATION[field.name]]) for field in fields(Evaluation)
    })


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
