"""A registered version measured on today's task, by the same evaluator as the sweep."""

import json
from argparse import Namespace
from collections.abc import Callable

import mlflow
import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from flows.registry.promote import (
    CHAMPION,
    Contender,
    Decision,
    cells,
    crown,
    incomparable,
    incumbent,
    register_sweep,
    write_description,
)
from flows.registry.versions import evaluation_in_tags, model_name, move, moves, put, row_of, set_by_a_person, trail
from flows.tracking.runs import Record, open_record
from rdmd import config
from rdmd.data.manifest import read_manifest
from rdmd.errors import UserError
from rdmd.evaluation.evaluator import EvaluationTask, NamedTranslator, evaluate_translator
from rdmd.evaluation.row import GENERATOR
from rdmd.evaluation.selection import Evaluation, differences, features_name
from rdmd.evaluation.table import realism_name
from rdmd.pipeline.evaluation import evaluation_task
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_source import open_generator
from rdmd.pipeline.store import asking_for


def todays_task(settings: config.Settings, layout: Layout, measured: Evaluation) -> EvaluationTask:
    """The task of params.yaml and data/shards. Raises UserError if it is not the one behind reports/metrics.json."""
    task = evaluation_task(settings, layout)
    today = Evaluation(
        features=features_name(task.record()),
        source_digest=read_manifest(layout.shards / "source").digest,
        target_digest=read_manifest(layout.shards / "target").digest,
        n_source=len(task.source),
        n_reference=len(task.reference),
        seed=settings.seed,
    )
    found = differences(measured, today)
    if found:
        raise UserError(
            f"{layout.metrics} was measured on another {', '.join(found)} than params.yaml and "
            f"{layout.shards} describe; bring it up to date with `dvc repro`."
        )
    return task


def reevaluate(
    client: MlflowClient, version: ModelVersion, task: EvaluationTask, evaluation: Evaluation
) -> ModelVersion:
    """Translate and score with the version's weights, and tag it with the result.

    Raises UserError if it translates samples of another shape than the task's.
    """
    uri = f"models:/{version.name}/{version.version}"
    generator, shape, _ = open_generator(uri, task.device)
    given = tuple(task.source.shape[1:])
    if shape != given:
        raise UserError(
            f"{uri} translates samples of shape {_by(shape)} and today's have {_by(given)}, so it cannot "
            "be evaluated on them; promote a version by its number, which compares nothing."
        )
    before = row_of(version)
    row = evaluate_translator(
        NamedTranslator(lambda source, rng: _translated(generator, source), GENERATOR, nfe=1, lam=before.lam), task
    )
    return put(client, version, row, evaluation)


@torch.no_grad()
def _translated(generator: torch.nn.Module, source: torch.Tensor) -> torch.Tensor:
    return generator(source)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


LAYOUT = Layout()


def show(given: Namespace) -> None:
    """A table of the versions, with their aliases and numbers."""
    client, model = _asked(given)
    versions = _versions(client, model)
    rows = [row_of(version) for version in versions]
    evaluations = [evaluation_in_tags(version) for version in versions]
    letters = {one: _letter(number) for number, one in enumerate(dict.fromkeys(filter(None, evaluations)))}
    metric = next((realism_name(row) for row in rows if row.realism is not None), "FID")
    table = [["version", "aliases", "lambda", f"{metric} [95%]", "cost ± 2 se", "s/sample", "measured on"]]
    for version, row, evaluation in zip(versions, rows, evaluations, strict=True):
        aliases = sorted(alias for alias, number in model.aliases.items() if number == version.version)
        table.append([str(version.version), ", ".join(aliases), *cells(row), letters.get(evaluation, "?")])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    print(model.name)
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for evaluation, letter in letters.items():
        print(f"{letter}: {evaluation.short}")


def explain(given: Namespace) -> None:
    """Why the champion is the champion: what was compared when it was promoted, and where the alias has been."""
    client, model = _asked(given)
    now = model.aliases.get(CHAMPION)
    if now is None:
        raise UserError(f"{model.name} has no champion; let the rule pick one with `rdmd registry promote`.")
    version = client.get_model_version(model.name, now)
    print(f"models:/{model.name}@{CHAMPION} is version {now}, lambda {version.tags.get('lambda', '–')}\n")
    print(version.description or "Nothing was written down at its promotion; `rdmd registry promote` compares anew.")
    print()
    measured = evaluation_in_tags(version)
    if measured is not None and measured.short not in (version.description or ""):
        _, realism, cost, _ = cells(row_of(version))
        print(f"Its newest evaluation is another, on {measured.short}: {realism}, cost {cost}.\n")
    for made in moves(model, CHAMPION):
        print(f"{made.at}  version {made.version}  by {made.by}")
    if set_by_a_person(model, CHAMPION):
        print("A person set it, so that the rule leaves it; `rdmd registry promote` lets the rule decide again.")
    refused = _refused(model)
    if refused is not None:
        print(f"The last sweep's choice, version {refused['version']}, was refused: {refused['reason']}.")


def promote(given: Namespace) -> None:
    """Make a version the champion: the one that is named, or else the rule's choice for the present sweep."""
    by_hand = given.version is not None or given.lam is not None
    if given.alias != CHAMPION and not by_hand:
        raise UserError(f"--alias {given.alias} needs a version; name one, or give --lambda.")
    settings = config.load()
    if isinstance(settings.domains.source, config.Noise):
        raise UserError(
            "domains.source is noise, and a generator from noise is not registered; put an experiment that "
            "translates into params.yaml with `rdmd use`."
        )
    if not by_hand:
        _by_rule(open_record(settings.experiment), settings, given)
        return
    client, model = _asked(given)
    version = _named(client, model, given)
    if given.alias != CHAMPION:
        try:
            move(client, model, given.alias, version.version, "hand")
        except MlflowException as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"MLflow refuses --alias {given.alias} ({reason}); give another name.") from None
        print(f"models:/{model.name}@{given.alias} is version {version.version}")
        return
    if given.reevaluate:
        _measure_today(open_record(settings.experiment), settings, [model.aliases.get(CHAMPION), version.version])
        version = client.get_model_version(model.name, version.version)
    _by_hand(client, model, version, settings.register_)


def rollback(given: Namespace) -> None:
    """The champion before this one is the champion again."""
    client, model = _asked(given)
    known = {version.version for version in _versions(client, model)}
    now = model.aliases.get(CHAMPION)
    stack = trail(moves(model, CHAMPION))
    if stack and stack[-1] != now:
        stack.append(now)
    earlier = [version for version in stack[:-1] if version in known and version != now]
    if not earlier:
        raise UserError(
            f"{model.name} has had no champion before this one; name a version: `rdmd registry promote "
            "VERSION` (`rdmd registry list` shows them)."
        )
    move(client, model, CHAMPION, earlier[-1], "rollback")
    print(
        f"models:/{model.name}@{CHAMPION} is version {earlier[-1]} again, and was version {now}; the rule leaves it "
        "until `rdmd registry promote`"
    )


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "list": show,
    "explain": explain,
    "promote": promote,
    "rollback": rollback,
}


def _by_rule(record: Record, settings: config.Settings, given: Namespace) -> None:
    registered = register_sweep(record, settings, LAYOUT)
    if given.reevaluate:
        _measure_today(record, settings, [registered.model.aliases.get(CHAMPION)], registered.evaluation)
    decision = crown(record, registered, settings.register_, over_a_person=True)
    chosen = decision.chosen
    if decision.refused is not None:
        raise UserError(
            f"version {chosen.version.version} (lambda {chosen.row.lam:g}) is not promoted: "
            f"{decision.refused}; measure the champion on today's task with `rdmd registry promote "
            "--reevaluate`, or name a version."
        )
    print(
        f"models:/{registered.model.name}@{CHAMPION} is version {chosen.version.version}, lambda {chosen.row.lam:g}; "
        "`rdmd registry explain` says why"
    )


def _measure_today(
    record: Record, settings: config.Settings, versions: list[str | None], today: Evaluation | None = None
) -> None:
    """Evaluate those versions on today's task that were not measured on it."""

    name = model_name(settings.experiment)
    if today is None:
        today = register_sweep(record, settings, LAYOUT).evaluation
    found = [record.client.get_model_version(name, version) for version in dict.fromkeys(filter(None, versions))]
    old = [version for version in found if evaluation_in_tags(version) != today]
    task = todays_task(settings, LAYOUT, today) if old else None
    for version in old:
        print(f"evaluating version {version.version} on today's task")
        reevaluate(record.client, version, task, today)


def _by_hand(client: MlflowClient, model: RegisteredModel, version: ModelVersion, rules: config.Register) -> None:
    """Promote what a person named, and write down what it was comparable with."""
    evaluation = evaluation_in_tags(version)
    before = incumbent(client, model)
    move(client, model, CHAMPION, version.version, "hand")
    print(
        f"models:/{model.name}@{CHAMPION} is version {version.version}, by hand; the rule leaves it until "
        "`rdmd registry promote`"
    )
    if evaluation is None:
        print("it does not say what it was measured on, so it was compared with nothing")
        return
    footing = before(client, model.name)
    other = None if before is None else incomparable(before, evaluation)
    if other is not None:
        footing += f" They were not compared: {other}."
        print(f"not compared with the champion before: {other}")
    alike = [Contender(one, row_of(one)) for one in _versions(client, model) if evaluation_in_tags(one) == evaluation]
    chosen = next(one for one in alike if one.version.version == version.version)
    decision = Decision(chosen, alike, evaluation, None)
    write_description(client, decision, rules, "Champion by hand.", footing)


def _asked(given: Namespace) -> tuple[MlflowClient, RegisteredModel]:
    """The registered model that the command is about. Raises UserError if there is none or no store."""
    name = getattr(given, "model", None) or model_name(config.load().experiment)
    with asking_for(f"models:/{name}"):
        client = MlflowClient()
        try:
            return client, client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
    raise UserError(
        f"nothing is registered as {name} in {mlflow.get_tracking_uri()}; run `make repro`, or name "
        "another with --model."
    )


def _versions(client: MlflowClient, model: RegisteredModel) -> list[ModelVersion]:
    return sorted(client.search_model_versions(f"name = '{model.name}'"), key=lambda one: int(one.version))


def _named(client: MlflowClient, model: RegisteredModel, given: Namespace) -> ModelVersion:
    """The version of the number or the lambda that was given; of several of one lambda the newest."""
    versions = _versions(client, model)
    if given.version is not None:
        found = [one for one in versions if int(one.version) == given.version]
        asked = f"version {given.version}"
    else:
        found = [one for one in versions if row_of(one).lam == given.lam]
        asked = f"version of lambda {given.lam:g}"
    if not found:
        raise UserError(f"{model.name} has no {asked}; `rdmd registry list` shows what it has.")
    return found[-1]


def _refused(model: RegisteredModel) -> dict[str, object] | None:
    """What the last registering stage refused, if that was of this model and has not become the champion since."""
    try:
        registered = json.loads(LAYOUT.registry.read_text(encoding="utf-8"))
        refused = registered["refused"]
        since = {int(move.version) for move in moves(model, CHAMPION)}
        same = registered["name"] == model.name and refused["version"] not in since
        return refused if same and registered["aliases"][CHAMPION]["version"] == int(model.aliases[CHAMPION]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"#{number}"
