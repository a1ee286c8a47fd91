"""The registering flow: `python -m flows.stages.register`. The Pareto front into MLflow's model registry."""

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.registry.promote import (
    CHAMPION,
    Contender,
    Decision,
    RegisteredSweep,
    crown,
    incomparable,
    incumbent,
    register_sweep,
)
from flows.registry.versions import model_name, numbers, row_of
from flows.stages.stage import run_stage
from flows.tracking.runs import Record, open_record
from rdmd import config
from rdmd.evaluation.selection import describe
from rdmd.files import write_json
from rdmd.pipeline.layout import Layout


@task(cache_policy=NO_CACHE, persist_result=False)
def register_front(settings: config.Settings, layout: Layout) -> dict[str, object]:
    """Make the versions, set the aliases, and let the rule decide; gives what `reports/registry.json` holds."""
    record = open_record(settings.experiment)
    registered = register_sweep(record, settings, layout)
    return _described(record, registered, crown(record, registered, settings.register_), settings.register_)


@flow(name="register", validate_parameters=False)
def register(settings: config.Settings, layout: Layout) -> dict[str, object]:
    """Register the front; idempotent. Writes reports/registry.json."""
    if isinstance(settings.domains.source, config.Noise):
        write_json(layout.registry, _nothing(settings.experiment))
        print("registered nothing: a generator from noise has no source to translate; reports/ shows its samples")
        return _nothing(settings.experiment)
    registered = register_front(settings, layout)
    write_json(layout.registry, registered)
    create_markdown_artifact(_markdown(registered), key="registry", description="What is registered")
    print(f"registered {len(registered['versions'])} generators; the champion is {registered['champion']}")
    if registered["refused"]:
        print(said_loudly(registered))
    return registered


def said_loudly(registered: dict[str, object]) -> str:
    """That the rule's choice was refused, why, and what can be done."""
    refused, kept = registered["refused"], registered["aliases"]["champion"]["version"]
    return (
        f"THE CHAMPION STAYS version {kept}: version {refused['version']} (lambda {refused['lambda']:g}), which "
        f"the rule would take, was refused: {refused['reason']}. See `rdmd registry explain`; "
        f"`rdmd registry promote{refused['option']}` decides anew."
    )


def _described(
    record: Record, registered: RegisteredSweep, decision: Decision, rules: config.Register
) -> dict[str, object]:
    aliases = {alias: _pointed(one) for alias, one in registered.ends.items()}
    now = incumbent(record.client, record.client.get_registered_model(registered.model.name))
    aliases = {CHAMPION: _pointed(Contender(now, row_of(now))), **aliases}
    refused = None
    if decision.refused is not None:
        again = incomparable(now, registered.evaluation) is not None
        refused = _pointed(decision.chosen) | {"reason": decision.refused, "option": " --reevaluate" if again else ""}
    name = registered.model.name
    return {
        "name": name,
        "champion": f"models:/{name}@{CHAMPION}",
        "rule": describe(rules),
        "versions": [
            {
                "version": int(version.version),
                "lambda": one.row.lam,
                "sha256": one.card.sha256,
                **numbers(one.row),
            }
            for version, one in zip(registered.versions, registered.candidates, strict=True)
        ],
        "aliases": aliases,
        "refused": refused,
    }


def _pointed(one: Contender) -> dict[str, object]:
    return {"version": int(one.version.version), "lambda": one.row.lam}


def _nothing(experiment: str) -> dict[str, object]:
    return {"name": model_name(experiment), "champion": None, "versions": [], "aliases": {}, "refused": None}


def _markdown(registered: dict[str, object]) -> str:
    lines = [f"# {registered['name']}", "", f"Champion by {registered['rule']}."]
    if registered["refused"]:
        lines += ["", f"**{said_loudly(registered)}**"]
    lines += ["", "| version | lambda | aliases |", "|---|---|---|"]
    for version in registered["versions"]:
        names = [alias for alias, one in registered["aliases"].items() if one["version"] == version["version"]]
        lines.append(f"| {version['version']} | {version['lambda']:g} | {', '.join(names)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(register, __doc__ or "")
