"""The registering flow: `python -m flows.stages.register`. The Pareto front into MLflow's model registry."""

from typing import TypedDict

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.registry.promote import Contender, champion_of, promote_by_rule, register_sweep
from flows.registry.versions import CHAMPION, model_name, row_of
from flows.stages.stage import run_stage
from flows.tracking.runs import open_record
from rdmd import config
from rdmd.evaluation.selection import describe
from rdmd.files import write_json
from rdmd.pipeline.layout import Layout

Pointed = TypedDict("Pointed", {"version": int, "lambda": float | None})
Refused = TypedDict("Refused", {"version": int, "lambda": float | None, "reason": str, "command": str | None})


class Registered(TypedDict):
    """`reports/registry.json`. `refused` is the rule's choice where the champion stays in spite of it."""

    name: str
    champion: str | None
    rule: str
    versions: list[dict[str, int | float | str | None]]
    aliases: dict[str, Pointed]
    refused: Refused | None


@task(cache_policy=NO_CACHE, persist_result=False)
def register_front(settings: config.Settings, layout: Layout) -> Registered:
    """Make the versions, set the aliases, and let the rule decide."""
    record, rules = open_record(settings.experiment), settings.register_
    sweep = register_sweep(record, settings, layout)
    name = sweep.model.name
    decision = promote_by_rule(record, sweep, rules)
    champion = champion_of(record, name)
    assert champion is not None, "the rule promotes where there is no champion"
    refused: Refused | None = None
    if decision.refused is not None:
        refused = {**_pointed(decision.chosen), "reason": decision.refused, "command": decision.command}
    return {
        "name": name,
        "champion": f"models:/{name}@{CHAMPION}",
        "rule": describe(rules),
        "versions": [_version(one) for one in sweep.contenders],
        "aliases": {
            CHAMPION: _pointed(Contender(champion, row_of(champion))),
            **{alias: _pointed(one) for alias, one in sweep.ends.items()},
        },
        "refused": refused,
    }


def _pointed(one: Contender) -> Pointed:
    return {"version": one.number, "lambda": one.row.lam}


def _version(one: Contender) -> dict[str, int | float | str | None]:
    row = one.row
    measured = {"fid": row.fid, "sw2": row.sw2, "cost": row.cost}
    known = {key: value for key, value in measured.items() if value is not None}
    return {"version": one.number, "lambda": row.lam, "sha256": one.version.tags["sha256"], **known}


@flow(name="register", validate_parameters=False)
def register(settings: config.Settings, layout: Layout) -> Registered:
    """Register the front and write reports/registry.json. Repeating it changes nothing."""
    if isinstance(settings.domains.source, config.Noise):
        registered = _nothing(settings)
        print("registered nothing: a generator from noise has no source to translate; reports/ shows its samples")
    else:
        registered = register_front(settings, layout)
        create_markdown_artifact(_markdown(registered), key="registry", description="What is registered")
        print(f"registered {len(registered['versions'])} generators; the champion is {registered['champion']}")
        if registered["refused"]:
            print(refusal(registered))
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
    }


def refusal(registered: Registered) -> str:
    """That the rule's choice was not promoted, the reason, and the command that promotes."""
    refused, kept = registered["refused"], registered["aliases"][CHAMPION]["version"]
    assert refused is not None
    return (
        f"THE CHAMPION STAYS version {kept}. The rule chooses version {refused['version']} (lambda "
        f"{refused['lambda']:g}), which is not promoted: {refused['reason']}. `{refused['command']}` promotes it "
        "anyway."
    )


def _markdown(registered: Registered) -> str:
    lines = [f"# {registered['name']}", "", f"Champion by {registered['rule']}."]
    if registered["refused"]:
        lines += ["", f"**{refusal(registered)}**"]
    lines += ["", "| version | lambda | aliases |", "|---|---|---|"]
    for version in registered["versions"]:
        names = [alias for alias, one in registered["aliases"].items() if one["version"] == version["version"]]
        lines.append(f"| {version['version']} | {version['lambda']:g} | {', '.join(names)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(register, __doc__ or "")
