"""Where an alias of a registered model has pointed, so that it can go back: a tag of the model, added to and never cut.

The moves of `champion` are the JSON list of the tag `history.champion`.
"""

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel

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
