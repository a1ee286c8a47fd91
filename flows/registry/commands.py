"""The command `rdmd registry`: list the registered versions, promote one, roll a promotion back."""

from argparse import Namespace
from collections.abc import Callable

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from flows.registry.promote import decide, register_sweep
from flows.registry.versions import (
    CAUTION,
    CHAMPION,
    evaluation_in_tags,
    model_name,
    promote_version,
    promotion_of,
    roll_back,
    row_of,
)
from flows.tracking.runs import open_record, user_name
from rdmd import config
from rdmd.errors import UserError
from rdmd.evaluation.row import Row
from rdmd.evaluation.selection import STANDARD_ERRORS
from rdmd.evaluation.table import interval, number, plus_minus, realism_name
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.store import asking_for

UNTIL = "the rule leaves it until `rdmd registry promote`"


def list_versions(arguments: Namespace) -> None:
    """Print a table of the versions with their aliases and numbers, and how the champion was promoted."""
    client, model = _registered_model(arguments)
    versions = _versions(client, model)
    rows = [row_of(version) for version in versions]
    evaluations = [evaluation_in_tags(version) for version in versions]
    letters = {
        evaluation: _letter(index)
        for index, evaluation in enumerate(dict.fromkeys(evaluation for evaluation in evaluations if evaluation))
    }
    names = {realism_name(row): None for row in rows if row.realism is not None}
    cost = f"cost ± {STANDARD_ERRORS:g} se"
    table = [
        ["version", "aliases", "lambda", f"{' or '.join(names) or 'realism'} [95%]", cost, "s/sample", "measured on"]
    ]
    for version, row, evaluation in zip(versions, rows, evaluations, strict=True):
        aliases = sorted(alias for alias, at in model.aliases.items() if at == version.version)
        letter = letters[evaluation] if evaluation else "?"
        table.append([str(version.version), ", ".join(aliases), *_cells(row, len(names) > 1), letter])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    print(model.name)
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for measured, letter in letters.items():
        print(f"{letter}: {measured.short}")
    for caution in dict.fromkeys(version.tags[CAUTION] for version in versions if CAUTION in version.tags):
        among = ", ".join(str(version.version) for version in versions if version.tags.get(CAUTION) == caution)
        print(f"the ranking of {among} means nothing, since {caution}")
    promotion = promotion_of(model)
    if promotion is not None:
        at = f" at {promotion.at}" if promotion.at else ""
        before = f"; before it: {', '.join(promotion.before)}" if promotion.before else ""
        print(f"champion: version {promotion.version}, promoted by {promotion.by}{at}{before}")


def _cells(row: Row, named: bool) -> list[str]:
    spread = None if row.cost_se is None else STANDARD_ERRORS * row.cost_se
    lam = "–" if row.lam is None else f"{row.lam:g}"
    realism = interval(row.realism, row.realism_ci)
    realism = f"{realism_name(row)} {realism}" if named else realism
    return [lam, realism, plus_minus(row.cost, spread), number(row.seconds_per_image)]


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"#{index}"


def promote(arguments: Namespace) -> None:
    """Promote the version that the arguments name, or else the rule's choice for the present sweep."""
    by_hand = arguments.version is not None or arguments.lam is not None
    if arguments.alias != CHAMPION and not by_hand:
        raise UserError(f"--alias {arguments.alias} needs a version; name one, or give --lambda.")
    if not by_hand:
        if arguments.model is not None:
            raise UserError("--model needs a version; name one, or give --lambda.")
        _promote_by_rule(config.load())
        return
    client, model = _registered_model(arguments)
    version = str(_named_version(client, model, arguments).version)
    if arguments.alias == CHAMPION:
        promote_version(client, model, version, user_name())
        print(f"models:/{model.name}@{CHAMPION} is version {version}, promoted by {user_name()}; {UNTIL}")
        return
    try:
        client.set_registered_model_alias(model.name, arguments.alias, version)
    except MlflowException as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"MLflow refuses --alias {arguments.alias} ({reason}); give another name.") from None
    print(f"models:/{model.name}@{arguments.alias} is version {version}")


def _promote_by_rule(settings: config.Settings) -> None:
    if isinstance(settings.domains.source, config.Noise):
        raise UserError(
            "domains.source is noise, and a generator from noise is not registered; put an experiment that "
            "translates into params.yaml with `rdmd use`."
        )
    record = open_record(settings.experiment)
    sweep = register_sweep(record, settings, Layout())
    decision = decide(record, sweep, settings.register_, asked=True)
    chosen = f"version {decision.chosen.version}, lambda {row_of(decision.chosen).lam:g}"
    if decision.refused is not None:
        raise UserError(f"{chosen}, is not promoted: {decision.refused}; `{decision.command}` promotes it anyway.")
    print(f"models:/{sweep.name}@{CHAMPION} is {chosen}, the rule's choice")


def rollback(arguments: Namespace) -> None:
    """Make the champion before the present one the champion again."""
    client, model = _registered_model(arguments)
    now = model.aliases.get(CHAMPION)
    promotion = roll_back(client, model, {str(version.version) for version in _versions(client, model)})
    if promotion is None:
        raise UserError(
            f"{model.name} has had no champion before this one; name a version: `rdmd registry promote "
            f"VERSION{_option(arguments)}` (`rdmd registry list{_option(arguments)}` shows them)."
        )
    print(f"models:/{model.name}@{CHAMPION} is version {promotion.version} again, and was version {now}; {UNTIL}")


COMMANDS: dict[str, Callable[[Namespace], None]] = {"list": list_versions, "promote": promote, "rollback": rollback}


def _registered_model(arguments: Namespace) -> tuple[MlflowClient, RegisteredModel]:
    """The registered model that the command is about. Raises UserError if there is none or no store."""
    name = arguments.model or model_name(config.load().experiment)
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
    return sorted(client.search_model_versions(f"name = '{model.name}'"), key=lambda version: int(version.version))


def _named_version(client: MlflowClient, model: RegisteredModel, arguments: Namespace) -> ModelVersion:
    """The version of the number or the lambda in the arguments; of several of one lambda the newest."""
    versions = _versions(client, model)
    if arguments.version is not None:
        found = [version for version in versions if int(version.version) == arguments.version]
        asked = f"version {arguments.version}"
    else:
        found = [version for version in versions if row_of(version).lam == arguments.lam]
        asked = f"version of lambda {arguments.lam:g}"
    if not found:
        raise UserError(f"{model.name} has no {asked}; `rdmd registry list{_option(arguments)}` shows what it has.")
    return found[-1]


def _option(arguments: Namespace) -> str:
    """`--model` as it was given: the advice of an error is about the same model."""
    return f" --model {arguments.model}" if arguments.model else ""
