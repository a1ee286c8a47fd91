"""A sweep's generators in the registry: versions for the front, the aliases of its ends, and the rule's decision."""

from dataclasses import dataclass, replace

from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from flows import alias_history, champion, registry, version_tags
from flows.comparison import Contender
from flows.tracking import Record
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.metrics_file import read_metrics
from rdmd.evaluation.pareto import pick
from rdmd.evaluation.row import GENERATOR, Metrics
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.selection.front import front
from rdmd.selection.identity import Evaluation, require_fit_features
from rdmd.training.spec import lambda_name

ENDS = ("most-faithful", "most-realistic")


@dataclass(frozen=True)
class RegisteredSweep:
    """A version for each generator of the sweep's front, and for each end of it. `evaluation` is what all of it was
    measured on."""

    model: RegisteredModel
    candidates: list[registry.Candidate]
    versions: list[ModelVersion]
    ends: dict[str, Contender]
    evaluation: Evaluation

    @property
    def contenders(self) -> list[Contender]:
        """The versions with their rows."""
        return [Contender(version, one.row) for version, one in zip(self.versions, self.candidates, strict=True)]


def sweep(metrics: Metrics, layout: Layout) -> list[registry.Candidate]:
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
            raise UserError(f"{layout.metrics} was measured on another generator than {folder} holds; repeat "
                            "`rdmd evaluate` or `dvc repro`.")
        candidates.append(registry.Candidate(folder, card, row, metrics))
    if not candidates:
        raise UserError(f"{layout.metrics} holds no generator; repeat `rdmd evaluate` or `dvc repro`.")
    return candidates


def register_sweep(record: Record, settings: config.Settings, layout: Layout) -> RegisteredSweep:
    """Make the versions that are missing, tag all by the newest evaluation, and set the aliases of the front's ends.

    A generator of the sweep that was registered once and is not on the front by now is tagged as well.
    """
    candidates = sweep(read_metrics(layout.metrics), layout)
    name = registry.model_name(settings.experiment)
    registry.ensure_model(record, name, f"One-step translation, experiment {settings.experiment}.")
    flags = front([one.row for one in candidates], settings.register_.front)
    on_front = [one for one, flag in zip(candidates, flags, strict=True) if flag]
    versions = [registry.register(record, name, one) for one in on_front]
    for one, flag in zip(candidates, flags, strict=True):
        known = None if flag else registry.find(record, name, one.card.sha256)
        if known is not None:
            version_tags.put(record.client, known, one.row, one.evaluation)
    rows = [one.row.model_copy(update={"on_front": True}) for one in on_front]
    ends = {}
    for alias in ENDS:
        index = rows.index(pick(rows, alias))
        ends[alias] = Contender(versions[index], on_front[index].row)
        alias_history.move(
            record.client, record.client.get_registered_model(name), alias, versions[index].version, "rule"
        )
    model = record.client.get_registered_model(name)
    return RegisteredSweep(model, on_front, versions, ends, candidates[0].evaluation)


def crown(
    record: Record, registered: RegisteredSweep, rules: config.Register, *, over_a_person: bool = False
) -> champion.Decision:
    """Let the rule decide, and give the alias to its choice unless that is refused.

    What a person set stays, except `over_a_person`. Raises UserError if no generator keeps to the rule's bounds.
    """
    now = champion.incumbent(record.client, registered.model)
    decision = champion.decide(registered.contenders, now, registered.evaluation, rules)
    if decision.refused is None and not over_a_person:
        decision = replace(decision, refused=champion.held(registered.model, decision))
    if decision.refused is None:
        champion.enthrone(record.client, registered.model, decision, rules)
    return decision
