"""The registering flow: `python -m flows.stages.register`. The Pareto front into MLflow's model registry."""

import os
from typing import TypedDict

import mlflow
from mlflow.entities.model_registry import ModelVersion
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.registry.promote import candidates, decide, register_sweep
from flows.registry.versions import CHAMPION, model_name, row_of
from flows.stages.stage import run_stage
from flows.tracking.runs import open_record, store_errors
from rdmd import config
from rdmd.evaluation.row import Row
from rdmd.evaluation.selection import describe
from rdmd.evaluation.table import chosen_numbers
from rdmd.files import write_json
from rdmd.pipeline.layout import Layout

Pointed = TypedDict("Pointed", {"version": int, "lambda": float | None})
Refused = TypedDict("Refused", {"version": int, "lambda": float | None, "reason": str, "command": str | None})
# DVC sets these for the commands of `dvc exp run`.
EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")


class Registered(TypedDict):
    """`reports/registry.json`. `refused` is the rule's choice where the champion stays in spite of it.

    `caution` is why the evaluation ranks nothing. After a DVC experiment, which registers nothing, `versions` lists the
    front without version numbers.
    """

    name: str
    champion: str | None
    rule: str
    versions: list[dict[str, int | float | str | None]]
    aliases: dict[str, Pointed]
    refused: Refused | None
    caution: str | None


@task(cache_policy=NO_CACHE, persist_result=False)
def register_front(settings: config.Settings, layout: Layout) -> Registered:
    """Make the versions, let the rule decide, and set the aliases. Writes reports/champion.json."""
    record = open_record(settings.experiment)
    with store_errors(mlflow.get_tracking_uri()):
        sweep = register_sweep(record, settings, layout)
        decision = decide(record, sweep, settings.register_)
    refused: Refused | None = None
    if decision.refused is not None:
        refused = {**_pointed(decision.chosen), "reason": decision.refused, "command": decision.command}
    write_json(layout.champion, {"champion": chosen_numbers(row_of(decision.aliases[CHAMPION]))})
    return {
        **_nothing(settings),
        "champion": f"models:/{sweep.name}@{CHAMPION}",
        "versions": [
            _version(int(version.version), row_of(version), version.tags["sha256"]) for version in sweep.versions
        ],
        "aliases": {alias: _pointed(version) for alias, version in decision.aliases.items()},
        "refused": refused,
        "caution": sweep.caution,
    }


def unregistered_front(settings: config.Settings, layout: Layout) -> Registered:
    """What an experiment would register. `rdmd summary` and `make repro` find that the registry lacks it."""
    found = candidates(layout)
    return {
        **_nothing(settings),
        "champion": f"models:/{model_name(settings.experiment)}@{CHAMPION}",
        "versions": [
            _version(None, generator.row, generator.card.sha256) for generator in found if generator.row.on_front
        ],
        "caution": found[0].caution,
    }


def _pointed(version: ModelVersion) -> Pointed:
    return {"version": int(version.version), "lambda": row_of(version).lam}


def _version(number: int | None, row: Row, sha256: str) -> dict[str, int | float | str | None]:
    return {"version": number, "sha256": sha256, **chosen_numbers(row)}


@flow(name="register", flow_run_name="{settings.experiment} register", validate_parameters=False)
def register(settings: config.Settings, layout: Layout) -> Registered:
    """Register the front and write reports/registry.json. Repeating it changes nothing."""
    if not layout.champion.exists():
        write_json(layout.champion, {})
    if isinstance(settings.domains.source, config.Noise):
        registered = _nothing(settings)
        print("registered nothing: a generator from noise has no source to translate; reports/ shows its samples")
    elif set(EXPERIMENT) & set(os.environ) and not settings.register_.experiments:
        registered = unregistered_front(settings, layout)
        print("registered nothing: this is a DVC experiment; `make repro` after `dvc exp apply` registers it")
    else:
        registered = register_front(settings, layout)
        create_markdown_artifact(_markdown(registered), key="registry", description="What is registered")
        print(f"registered {len(registered['versions'])} generators; the champion is {registered['champion']}")
        if registered["refused"]:
            print(refusal(registered))
    if registered["caution"]:
        print(f"the ranking means nothing, since {registered['caution']}")
    write_json(layout.registry, registered)
    return registered


def _nothing(settings: config.Settings) -> Registered:
    return {
        "name": model_name(settings.experiment),
        "champion": None,
        "rule": describe(settings.register_),
        "versions": [],
        "aliases": {},
        "refused": None,
        "caution": None,
    }


def refusal(registered: Registered) -> str:
    """That the rule's choice was not promoted, the reason, and the command that promotes."""
    refused, kept = registered["refused"], registered["aliases"][CHAMPION]["version"]
    assert refused is not None
    return (
        f"THE CHAMPION STAYS version {kept}. The challenger, version {refused['version']} (lambda "
        f"{refused['lambda']:g}), is not promoted: {refused['reason']}. `{refused['command']}` promotes it anyway."
    )


def _markdown(registered: Registered) -> str:
    lines = [f"# {registered['name']}", "", f"Champion by {registered['rule']}."]
    if registered["refused"]:
        lines += ["", f"**{refusal(registered)}**"]
    if registered["caution"]:
        lines += ["", f"**The ranking means nothing, since {registered['caution']}.**"]
    lines += ["", "| version | lambda | aliases |", "|---|---|---|"]
    for version in registered["versions"]:
        names = [alias for alias, pointed in registered["aliases"].items() if pointed["version"] == version["version"]]
        lines.append(f"| {version['version']} | {version['lambda']:g} | {', '.join(names)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(__doc__ or "", register)
