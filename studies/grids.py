"""What is measured: whole params files (experiments/studies/, or the experiment of that name), seeds, comparisons."""

import functools
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from rdmd import config
from rdmd.errors import UserError

FOLDER = Path("experiments") / "studies"
SEEDS = (0, 1, 2)
STUDIES = ("avatars", "emoji", "clothing", "swissroll", "eight_gaussians", "gaussian", "digits", "colored_mnist")
# Files of comparisons: each entry is a study with some settings changed.
COMPARISONS = ("one_generator", "ablations", "costs", "few_images")

Part = Literal["references", "rdmd", "baselines"]
PARTS: tuple[Part, ...] = ("references", "rdmd", "baselines")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Comparison(config.Section):
    """A study with settings changed, one variant for each.

    A key is one of `distill`, or has dots and is of any section: `teacher.augment`. Where variants have such keys, each
    has data and a teacher of its own; all are evaluated as the study with `settings` changed. Every variant is measured
    at `lambdas` with `settings` changed, unless it has its own.
    """

    name: Name
    study: str
    title: str
    lambdas: config.Lambdas
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    settings: dict[str, Any] = {}
    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]

    @property
    def own_teachers(self) -> bool:
        """Whether variants differ in more than `distill`."""
        return any("." in key for changes in self.variants.values() for key in changes)


def study_settings(study: str, seed: int, folder: Path = FOLDER) -> config.Settings:
    """A study's settings at one seed: of its own file, or of the experiment of its name.

    Raises UserError if there is no such study or its file is wrong.
    """
    file = next((file for file in (folder / f"{study}.yaml", folder.parent / f"{study}.yaml") if file.is_file()), None)
    if file is None:
        raise UserError(f"{folder / study}.yaml does not exist; name one of {', '.join(STUDIES)}.")
    return config.load(file).model_copy(update={"seed": seed})


def comparisons(name: str, folder: Path = FOLDER) -> list[Comparison]:
    """The comparisons of `ablations` or `costs`. Raises UserError if the file is missing or wrong."""
    file = folder / f"{name}.yaml"
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TypeAdapter(list[Comparison]).validate_python(raw)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; take it from the repository again.") from None
    except (ValidationError, yaml.YAMLError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}; correct it.") from None


def variant_settings(base: config.Settings, comparison: Comparison, variant: str | None) -> config.Settings:
    """The study's settings with the comparison's changes, and those of a variant. Raises UserError if they are none."""
    raw = base.model_dump(mode="json", by_alias=True)
    lambdas = comparison.model_dump(mode="json", include={"lambdas"})
    for key, value in (lambdas | comparison.settings | comparison.variants.get(variant or "", {})).items():
        *sections, last = key.split(".") if "." in key else ("distill", key)
        try:
            functools.reduce(operator.getitem, sections, raw)[last] = value
        except (KeyError, TypeError):
            raise UserError(f"comparison {comparison.name}: there is no key {key}; correct it.") from None
    try:
        return config.Settings.model_validate(raw)
    except ValidationError as error:
        raise UserError(
            f"comparison {comparison.name}, variant {variant}: {' '.join(str(error).split())}; correct it."
        ) from None
