"""The front of an experiment as the registry has it, for `rdmd demo`."""

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows import version_tags
from flows.registry import model_name
from rdmd import config
from rdmd.errors import UserError
from rdmd.pipeline.store import asking_for
from rdmd.selection.front import front
from rdmd.serving.demo import FrontModel


def registered_front(settings: config.Settings) -> list[FrontModel]:
    """The registered generators that were measured on what the champion was, and of them those on the front.

    Where no champion says what it was measured on, the newest version that does takes its place. Raises UserError if
    nothing is registered, or nothing of it says its numbers.
    """
    name = model_name(settings.experiment)
    with asking_for(f"models:/{name}"):
        client = MlflowClient()
        model = client.get_registered_model(name)
        versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda one: -int(one.version))
    measured = [one for one in versions if _has_numbers(one)]
    if not measured:
        raise UserError(f"no version of {name} in {mlflow.get_tracking_uri()} says its numbers; register this sweep "
                        "with `dvc repro -f register`.")
    champion = next((one for one in measured if one.version == model.aliases.get("champion")), measured[0])
    alike = [one for one in measured if version_tags.evaluation_of(one) == version_tags.evaluation_of(champion)]
    rows = [version_tags.row_of(one) for one in alike]
    aliases = {one.version: tuple(alias for alias, at in model.aliases.items() if at == one.version) for one in alike}
    return [
        FrontModel(f"models:/{name}/{one.version}", row, aliases[one.version])
        for one, row, on_front in zip(alike, rows, front(rows, settings.register_.front), strict=True)
        if on_front
    ]


def _has_numbers(version: ModelVersion) -> bool:
    row = version_tags.row_of(version)
    known = None not in (row.lam, row.cost, row.realism)
    return known and version_tags.evaluation_of(version) is not None
