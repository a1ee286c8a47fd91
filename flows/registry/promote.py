"""Which version is the champion: the rule of params.yaml, and the gate that a version passes to replace another."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from flows.registry.versions import (
    CHAMPION,
    RULE,
    Candidate,
    ensure_model,
    evaluation_in_tags,
    find_version,
    measured_versions,
    model_name,
    promote_version,
    promotion_of,
    register_generator,
    row_of,
    tag_evaluation,
)
from flows.tracking.runs import Record, user_name
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.row import GENERATOR, IDENTITY, Row
from rdmd.evaluation.selection import Evaluation, Rule, choose, differences, mark_front, pick, require_ranking
from rdmd.evaluation.table import read_metrics
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import generator_folder, read_card

# The alias of the rule's choice while it is not the champion.
CHALLENGER = "challenger"
# The aliases of the two ends of the front.
ENDS: tuple[Rule, ...] = ("most-faithful", "most-realistic")


@dataclass(frozen=True)
class RegisteredSweep:
    """A version for each generator of the sweep's front, and their evaluation.

    `caution` is why it ranks nothing; None if it does. `source` is the row of the untranslated source, if there is one.
    """

    name: str
    versions: list[ModelVersion]
    evaluation: Evaluation
    caution: str | None
    source: Row | None


@dataclass(frozen=True)
class Decision:
    """The rule's choice and the aliases. If it is not promoted, `refused` is the reason; `command` promotes it."""

    chosen: ModelVersion
    aliases: dict[str, ModelVersion]
    refused: str | None = None
    command: str | None = None


def register_sweep(record: Record, settings: config.Settings, layout: Layout) -> RegisteredSweep:
    """Make the versions that are missing, and tag all by the newest evaluation.

    A generator that was registered earlier and is no longer on the front is tagged too.
    """
    found = candidates(layout)
    client, name = record.client, model_name(settings.experiment)
    ensure_model(record, name, f"One-step translation, experiment {settings.experiment}.")
    versions = []
    for generator in found:
        if generator.row.on_front:
            versions.append(register_generator(record, name, generator))
        elif (known := find_version(record, name, generator.card)) is not None:
            tag_evaluation(client, known, generator)
    source = next((row for row in found[0].metrics.rows if row.method == IDENTITY), None)
    return RegisteredSweep(name, versions, found[0].evaluation, found[0].caution, source)


def candidates(layout: Layout) -> list[Candidate]:
    """Every generator that was evaluated. Raises UserError if its files are missing or of another training, or if the
    features of the evaluation cannot rank."""
    metrics = read_metrics(layout.metrics)
    require_ranking(metrics)
    samples = layout.samples if layout.samples.exists() else None
    found = []
    for row in metrics.rows:
        if row.method != GENERATOR or row.lam is None:
            continue
        folder = generator_folder(layout, row.run)
        found.append(Candidate(folder, read_card(folder).model_copy(update={"lam": row.lam}), row, metrics, samples))
    if not found:
        raise UserError(f"{layout.metrics} holds no generator; repeat `rdmd evaluate` or `dvc repro`.")
    return found


def decide(record: Record, sweep: RegisteredSweep, rules: config.Register, *, asked: bool = False) -> Decision:
    """Let the rule choose among all versions of the sweep's evaluation, promote its choice or not, and set the aliases.

    Where there is a champion, the choice replaces it unless it has another evaluation, a person promoted it, the
    champion is `manual`, or the evaluation ranks nothing. `asked` (a person lets the rule decide) overrides all but the
    first. A choice that is not promoted becomes the challenger. Raises UserError if no generator is within the bounds.
    """
    client, name = record.client, sweep.name
    every = measured_versions(client, name)
    equal = [version for version in every if evaluation_in_tags(version) == sweep.evaluation]
    chosen = equal[choose([*map(row_of, equal), *filter(None, [sweep.source])], rules)]
    model = client.get_registered_model(name)
    refused, command = _refusal(client, model, sweep, chosen, rules, asked)
    if refused is None:
        by_hand = asked and rules.champion.rule == "manual"
        if asked or str(model.aliases.get(CHAMPION)) != str(chosen.version):
            promote_version(client, model, str(chosen.version), user_name() if by_hand else RULE)
        champion = chosen
    else:
        champion = client.get_model_version(name, str(model.aliases[CHAMPION]))
    aliases = {CHAMPION: champion, **_ends(every, champion)}
    if refused is not None:
        aliases[CHALLENGER] = chosen
    _set_aliases(client, model, {alias: version for alias, version in aliases.items() if alias != CHAMPION})
    return Decision(chosen, aliases, refused, command)


def _refusal(
    client: MlflowClient,
    model: RegisteredModel,
    sweep: RegisteredSweep,
    chosen: ModelVersion,
    rules: config.Register,
    asked: bool,
) -> tuple[str | None, str | None]:
    """Why the rule's choice does not replace the champion, and the command that promotes it; None if it does."""
    last = promotion_of(model)
    if last is None or last.version == str(chosen.version):
        return None, None
    this_one = f"rdmd registry promote {chosen.version}"
    measured = evaluation_in_tags(client.get_model_version(model.name, last.version))
    if measured is None:
        return f"the tags of the champion, version {last.version}, lack its evaluation", this_one
    found = differences(measured, sweep.evaluation)
    if found:
        return f"the champion, version {last.version}, was measured on another {', '.join(found)}", this_one
    if asked:
        return None, None
    if rules.champion.rule == "manual":
        return "register.champion is manual", this_one
    if last.by != RULE:
        return f"{last.by} made version {last.version} the champion", "rdmd registry promote"
    if sweep.caution is not None:
        return f"the ranking means nothing, since {sweep.caution}", this_one
    return None, None


def _ends(every: list[ModelVersion], champion: ModelVersion) -> dict[str, ModelVersion]:
    """The ends of the front of all versions that compare with the champion, by their alias."""
    evaluation = evaluation_in_tags(champion)
    equal = [version for version in every if evaluation_in_tags(version) == evaluation] if evaluation else []
    rows = mark_front([row_of(version) for version in equal])
    return {alias: equal[rows.index(pick(rows, alias))] for alias in ENDS} if equal else {}


def _set_aliases(client: MlflowClient, model: RegisteredModel, aliases: dict[str, ModelVersion]) -> None:
    for alias, version in aliases.items():
        if str(model.aliases.get(alias)) != str(version.version):
            client.set_registered_model_alias(model.name, alias, str(version.version))
    if CHALLENGER in model.aliases and CHALLENGER not in aliases:
        client.delete_registered_model_alias(model.name, CHALLENGER)
