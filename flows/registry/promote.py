"""What was compared when a version was promoted, as the text of its description."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from flows.registry.versions import (
    Candidate,
    ensure_model,
    evaluation_in_tags,
    find,
    model_name,
    move,
    moves,
    put,
    register,
    row_of,
    set_by_a_person,
    trail,
)
from flows.tracking.runs import Record
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.pareto import pick
from rdmd.evaluation.row import GENERATOR, Metrics, Row
from rdmd.evaluation.selection import (
    STANDARD_ERRORS,
    Evaluation,
    bounds,
    choose,
    describe,
    differences,
    front,
    require_fit_features,
)
from rdmd.evaluation.table import interval, number, plus_minus, read_metrics, realism_name
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.run_config import lambda_name


@dataclass(frozen=True)
class Contender:
    """A registered version with its row of an evaluation that all who are compared share."""

    version: ModelVersion
    row: Row


def description(
    champion: Contender,
    contenders: Sequence[Contender],
    rules: config.Register,
    evaluation: Evaluation,
    heading: str,
    footing: str,
) -> str:
    """Markdown: who was compared on what, and what is said against each. The champion is one of the contenders."""
    verdicts = judge(contenders, rules)
    metric = realism_name(champion.row)
    lines = [
        heading,
        "",
        f"Measured on {evaluation.short}.",
        "",
        f"| version | lambda | {metric} [95%] | cost ± {STANDARD_ERRORS:g} se | seconds per image | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for one, verdict in zip(contenders, verdicts, strict=True):
        mark = "champion, " if one.version.version == champion.version.version else ""
        lines.append("| " + " | ".join([str(one.version.version), *cells(one.row), mark + verdict]) + " |")
    return "\n".join([*lines, "", footing])


def cells(row: Row) -> list[str]:
    """A row's lambda, realism, cost and time as people read them."""
    spread = None if row.cost_se is None else STANDARD_ERRORS * row.cost_se
    lam = "–" if row.lam is None else f"{row.lam:g}"
    return [lam, interval(row.realism, row.realism_ci), plus_minus(row.cost, spread), number(row.seconds_per_image)]


def judge(contenders: Sequence[Contender], rules: config.Register) -> list[str]:
    """For each, whether it is on the front, and the bounds that it breaks."""
    rows = [one.row for one in contenders]
    verdicts = []
    for row, on_front in zip(rows, front(rows, rules.front), strict=True):
        broken = [f"breaks {bound}" for bound in bounds(rules) if bound.excess(row) > 1]
        verdicts.append(", ".join(["on the front" if on_front else "dominated", *broken]))
    return verdicts


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
            compared.append(Contender(champion, row_of(champion)))
    choice = choose([one.row for one in compared], rules)
    return Decision(compared[choice.champion], compared, evaluation, refused)


def incomparable(champion: ModelVersion, evaluation: Evaluation) -> str | None:
    """Why the champion's numbers say nothing about `evaluation`; None if they do."""
    measured = evaluation_in_tags(champion)
    if measured is None:
        return (
            f"the champion, version {champion.version}, does not say what it was measured on (it was registered "
            "before that was kept)"
        )
    found = differences(measured, evaluation)
    return f"the champion, version {champion.version}, was measured on another {', '.join(found)}" if found else None


def held(model: RegisteredModel, decision: Decision) -> str | None:
    """Why the rule leaves the champion that a person has set; None if nobody did, or the rule agrees."""
    now = model.aliases.get(CHAMPION)
    if now == decision.chosen.version.version or not set_by_a_person(model, CHAMPION):
        return None
    return f"a person made version {now} the champion"


def enthrone(client: MlflowClient, model: RegisteredModel, decision: Decision, rules: config.Register) -> None:
    """Give the alias to the rule's choice, and write what was compared into its description."""
    move(client, model, CHAMPION, decision.chosen.version.version, "rule")
    heading = f"Champion by the rule: {describe(rules)}."
    write_description(client, decision, rules, heading, before(client, model.name))


def before(client: MlflowClient, name: str) -> str:
    """A sentence about the champion before the present one."""
    stack = trail(moves(client.get_registered_model(name), CHAMPION))
    return f"The champion before it was version {stack[-2]}." if len(stack) > 1 else "It is the first champion."


def write_description(
    client: MlflowClient, decision: Decision, rules: config.Register, heading: str, footing: str
) -> None:
    """Describe the chosen version by what it was compared with."""
    chosen = decision.chosen
    text = description(chosen, decision.contenders, rules, decision.evaluation, heading, footing)
    if chosen.version.description != text:
        client.update_model_version(chosen.version.name, chosen.version.version, description=text)


ENDS = ("most-faithful", "most-realistic")


@dataclass(frozen=True)
class RegisteredSweep:
    """A version for each generator of the sweep's front, and for each end of it. `evaluation` is what all of it was
    measured on."""

    model: RegisteredModel
    candidates: list[Candidate]
    versions: list[ModelVersion]
    ends: dict[str, Contender]
    evaluation: Evaluation

    @property
    def contenders(self) -> list[Contender]:
        """The versions with their rows."""
        return [Contender(version, one.row) for version, one in zip(self.versions, self.candidates, strict=True)]


def sweep(metrics: Metrics, layout: Layout) -> list[Candidate]:
    """Every generator that was evaluated. Raises UserError if its files are missing or of another training, or if the
    features of the evaluation rank nothing."""
    require_fit_features(metrics)
    candidates = []
    for row in metrics.rows:
        if row.method != GENERATOR or row.lam is None:
            continue
        folder = layout.generators / lambda_name(row.lam)
        card = read_card(folder)
        if card.run != row.run:
            raise UserError(
                f"{layout.metrics} was measured on another generator than {folder} holds; repeat "
                "`rdmd evaluate` or `dvc repro`."
            )
        candidates.append(Candidate(folder, card, row, metrics))
    if not candidates:
        raise UserError(f"{layout.metrics} holds no generator; repeat `rdmd evaluate` or `dvc repro`.")
    return candidates


def register_sweep(record: Record, settings: config.Settings, layout: Layout) -> RegisteredSweep:
    """Make the versions that are missing, tag all by the newest evaluation, and set the aliases of the front's ends.

    A generator of the sweep that was registered once and is not on the front by now is tagged as well.
    """
    candidates = sweep(read_metrics(layout.metrics), layout)
    name = model_name(settings.experiment)
    ensure_model(record, name, f"One-step translation, experiment {settings.experiment}.")
    flags = front([one.row for one in candidates], settings.register_.front)
    on_front = [one for one, flag in zip(candidates, flags, strict=True) if flag]
    versions = [register(record, name, one) for one in on_front]
    for one, flag in zip(candidates, flags, strict=True):
        known = None if flag else find(record, name, one.card.sha256)
        if known is not None:
            put(record.client, known, one.row, one.evaluation)
    rows = [one.row.model_copy(update={"on_front": True}) for one in on_front]
    ends = {}
    for alias in ENDS:
        index = rows.index(pick(rows, alias))
        ends[alias] = Contender(versions[index], on_front[index].row)
        move(record.client, record.client.get_registered_model(name), alias, versions[index].version, "rule")
    model = record.client.get_registered_model(name)
    return RegisteredSweep(model, on_front, versions, ends, candidates[0].evaluation)


def crown(
    record: Record, registered: RegisteredSweep, rules: config.Register, *, over_a_person: bool = False
) -> Decision:
    """Let the rule decide, and give the alias to its choice unless that is refused.

    What a person set stays, except `over_a_person`. Raises UserError if no generator keeps to the rule's bounds.
    """
    now = incumbent(record.client, registered.model)
    decision = decide(registered.contenders, now, registered.evaluation, rules)
    if decision.refused is None and not over_a_person:
        decision = replace(decision, refused=held(registered.model, decision))
    if decision.refused is None:
        enthrone(record.client, registered.model, decision, rules)
    return decision
