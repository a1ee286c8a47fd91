"""Which version is the champion: the sweep's versions, and the rule of params.yaml applied to them."""

from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from flows.registry.versions import (
    CHAMPION,
    RULE,
    Candidate,
    ensure_model,
    evaluation_in_tags,
    find_version,
    model_name,
    promote_version,
    promotion_of,
    register_generator,
    row_of,
    tag_evaluation,
)
from flows.tracking.runs import Record
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.pareto import Rule, pick
from rdmd.evaluation.row import GENERATOR, Metrics, Row
from rdmd.evaluation.selection import Evaluation, choose, differences, front, require_fit_features
from rdmd.evaluation.table import read_metrics
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.training.run_config import lambda_name

# The aliases of the two ends of the front.
ENDS: tuple[Rule, ...] = ("most-faithful", "most-realistic")


@dataclass(frozen=True)
class Contender:
    """A registered version with its row of an evaluation that all contenders share."""

    version: ModelVersion
    row: Row

    @property
    def number(self) -> int:
        """The number of the version."""
        return int(self.version.version)


@dataclass(frozen=True)
class RegisteredSweep:
    """A version for each generator of the sweep's front, and the ends of the front by their alias."""

    model: RegisteredModel
    contenders: list[Contender]
    ends: dict[str, Contender]
    evaluation: Evaluation


@dataclass(frozen=True)
class Decision:
    """The rule's choice. If it is not promoted, `refused` is the reason and `command` promotes all the same."""

    chosen: Contender
    refused: str | None = None
    command: str | None = None


def register_sweep(record: Record, settings: config.Settings, layout: Layout) -> RegisteredSweep:
    """Make the versions that are missing, tag all by the newest evaluation, and set the aliases of the front's ends.

    A generator that was registered earlier and is no longer on the front is tagged too.
    """
    candidates = _candidates(read_metrics(layout.metrics), layout)
    client, name = record.client, model_name(settings.experiment)
    ensure_model(record, name, f"One-step translation, experiment {settings.experiment}.")
    contenders = []
    flags = front([one.row for one in candidates], settings.register_.front)
    for one, on_front in zip(candidates, flags, strict=True):
        if on_front:
            row = one.row.model_copy(update={"on_front": True})
            contenders.append(Contender(register_generator(record, name, one), row))
        elif (known := find_version(record, name, one.card.sha256)) is not None:
            tag_evaluation(client, known, one.row, one.evaluation)
    model = client.get_registered_model(name)
    rows = [one.row for one in contenders]
    ends: dict[str, Contender] = {}
    for alias in ENDS:
        ends[alias] = end = contenders[rows.index(pick(rows, alias))]
        if str(model.aliases.get(alias)) != str(end.version.version):
            client.set_registered_model_alias(name, alias, end.version.version)
    return RegisteredSweep(client.get_registered_model(name), contenders, ends, candidates[0].evaluation)


def _candidates(metrics: Metrics, layout: Layout) -> list[Candidate]:
    """Every generator that was evaluated. Raises UserError if its files are missing or of another training, or if the
    features of the evaluation cannot rank."""
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


def champion_of(record: Record, name: str) -> ModelVersion | None:
    """The version that is the champion now."""
    number = record.client.get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else record.client.get_model_version(name, number)


def promote_by_rule(
    record: Record, sweep: RegisteredSweep, rules: config.Register, *, over_a_person: bool = False
) -> Decision:
    """Promote the rule's choice among the sweep and the present champion, unless that is refused.

    It is refused if the champion has another evaluation, or if a person promoted the champion (`over_a_person` allows
    the latter). Raises UserError if no generator is within the rule's bounds.
    """
    champion, contenders = champion_of(record, sweep.model.name), list(sweep.contenders)
    refused = None
    if champion is not None and int(champion.version) not in {one.number for one in contenders}:
        refused = _why_incomparable(champion, sweep.evaluation)
        if refused is None:
            contenders.append(Contender(champion, row_of(champion)))
    chosen = contenders[choose([one.row for one in contenders], rules).champion]
    if refused is not None:
        return Decision(chosen, refused, f"rdmd registry promote {chosen.number}")
    last = promotion_of(sweep.model)
    if last is not None and last.by != RULE and last.version != str(chosen.number) and not over_a_person:
        return Decision(chosen, f"{last.by} made version {last.version} the champion", "rdmd registry promote")
    if over_a_person or last is None or last.version != str(chosen.number):
        promote_version(record.client, sweep.model, str(chosen.number), RULE)
    return Decision(chosen)


def _why_incomparable(champion: ModelVersion, evaluation: Evaluation) -> str | None:
    """Why the champion's numbers do not compare with those of `evaluation`; None if they do."""
    measured = evaluation_in_tags(champion)
    if measured is None:
        return f"the tags of the champion, version {champion.version}, lack its evaluation"
    found = differences(measured, evaluation)
    return f"the champion, version {champion.version}, was measured on another {', '.join(found)}" if found else None
