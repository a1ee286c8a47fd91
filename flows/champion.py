"""Who is the champion: the rule's choice, unless the champion cannot be compared with it or a person has set it."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from flows import alias_history, version_tags
from flows.comparison import Contender, description
from rdmd import config
from rdmd.selection.identity import Evaluation, differences
from rdmd.selection.rules import choose, describe

CHAMPION = "champion"


@dataclass(frozen=True)
class Decision:
    """The rule's choice among `contenders`, and why it may not take the champion's place (None if it may)."""

    chosen: Contender
    contenders: list[Contender]
    evaluation: Evaluation
    refused: str | None


def incumbent(client: MlflowClient, model: RegisteredModel) -> ModelVersion | None:
    """The version that is the champion now."""
    version = model.aliases.get(CHAMPION)
    return None if version is None else client.get_model_version(model.name, version)


def decide(
    contenders: Sequence[Contender], champion: ModelVersion | None, evaluation: Evaluation, rules: config.Register
) -> Decision:
    """Apply the rules to a sweep, and to the champion where it was measured on the same.

    A champion that was measured on something else is not dethroned. Raises `UserError` if no contender keeps to the
    bounds.
    """
    compared, refused = list(contenders), None
    if champion is not None and champion.version not in {one.version.version for one in contenders}:
        refused = incomparable(champion, evaluation)
        if refused is None:
            compared.append(Contender(champion, version_tags.row_of(champion)))
    choice = choose([one.row for one in compared], rules)
    return Decision(compared[choice.champion], compared, evaluation, refused)


def incomparable(champion: ModelVersion, evaluation: Evaluation) -> str | None:
    """Why the champion's numbers say nothing about `evaluation`; None if they do."""
    measured = version_tags.evaluation_of(champion)
    if measured is None:
        return (f"the champion, version {champion.version}, does not say what it was measured on (it was registered "
                "before that was kept)")
    found = differences(measured, evaluation)
    return f"the champion, version {champion.version}, was measured on another {', '.join(found)}" if found else None


def held(model: RegisteredModel, decision: Decision) -> str | None:
    """Why the rule leaves the champion that a person has set; None if nobody did, or the rule agrees."""
    now = model.aliases.get(CHAMPION)
    if now == decision.chosen.version.version or not alias_history.set_by_a_person(model, CHAMPION):
        return None
    return f"a person made version {now} the champion"


def enthrone(client: MlflowClient, model: RegisteredModel, decision: Decision, rules: config.Register) -> None:
    """Give the alias to the rule's choice, and write what was compared into its description."""
    alias_history.move(client, model, CHAMPION, decision.chosen.version.version, "rule")
    heading = f"Champion by the rule: {describe(rules)}."
    write_description(client, decision, rules, heading, before(client, model.name))


def before(client: MlflowClient, name: str) -> str:
    """A sentence about the champion before the present one."""
    trail = alias_history.trail(alias_history.moves(client.get_registered_model(name), CHAMPION))
    return f"The champion before it was version {trail[-2]}." if len(trail) > 1 else "It is the first champion."


def write_description(
    client: MlflowClient, decision: Decision, rules: config.Register, heading: str, footing: str
) -> None:
    """Describe the chosen version by what it was compared with."""
    chosen = decision.chosen
    text = description(chosen, decision.contenders, rules, decision.evaluation, heading, footing)
    if chosen.version.description != text:
        client.update_model_version(chosen.version.name, chosen.version.version, description=text)
