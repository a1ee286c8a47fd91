"""The form of a run that is started in Prefect's UI: which experiment, and which of its values to change."""

import difflib
import enum
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from flows.environment import ROOT
from rdmd import config
from rdmd.files import write_text

# The choices of the form are the files at the time when the deployment is made.
Experiment = enum.StrEnum(  # type: ignore[misc]  # its members are not known before
    "Experiment", sorted(file.stem for file in (ROOT / config.EXPERIMENTS).glob("*.yaml"))
)
# Keeps every params.yaml that a run replaces, so that no edit is lost.
REPLACED = ROOT / ".prefect" / "replaced"


class Changes(BaseModel):
    """An empty field leaves the value of the experiment, or of `params.yaml`, as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: Annotated[
        Experiment | None, Field(description="A file of experiments/. Empty: params.yaml as it stands.")
    ] = None
    lambdas: Annotated[
        list[Annotated[float, Field(ge=0)]] | None,
        Field(description="Weights of the transport cost: small is realistic, large is faithful."),
    ] = None
    teacher_steps: Annotated[int | None, Field(gt=0, description="Optimiser steps of the teacher.")] = None
    distill_steps: Annotated[int | None, Field(gt=0, description="Optimiser steps of each generator.")] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, Field(description="`auto` uses the GPUs, if there are any.")
    ] = None
    parallel: Annotated[
        int | None, Field(gt=0, description="Trainings at a time; `auto` in params.yaml is one on each GPU.")
    ] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**31, description="The seed of data, training and evaluation.")] = None

    def values(self, before: config.Settings) -> dict[str, Any]:
        """The changed values by their dotted key in params.yaml, whose settings are `before`. Of a generator for a
        range of lambda, the lambdas are those to evaluate."""
        one_generator = isinstance(before.distill.lambdas, config.LambdaRange)
        named = {
            "evaluate.lambdas" if one_generator else "distill.lambdas": self.lambdas,
            "teacher.steps": self.teacher_steps,
            "distill.steps": self.distill_steps,
            "launch.device": self.device,
            "launch.parallel": self.parallel,
            "seed": self.seed,
        }
        return {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class Changed:
    """The settings of a run, their difference from the old params.yaml, and the file that keeps the old one."""

    settings: config.Settings
    difference: str
    kept: Path | None


def _changed_text(changes: Changes, base: Path) -> str:
    """The text of the params file `base` with the changes; comments, quotes and `null` stay."""
    # It tells of an empty or damaged file in a sentence.
    values = changes.values(config.load(base))
    text = base.read_text(encoding="utf-8")
    if not values:
        return text
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096
    editor.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    tree = editor.load(text)
    for key, value in values.items():
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            section = section[name]
        if isinstance(value, list):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        section[last] = value
    edited = io.StringIO()
    editor.dump(tree, edited)
    return edited.getvalue()


def apply(changes: Changes, params: Path = config.PARAMS, experiments: Path = config.EXPERIMENTS) -> Changed:
    """Write the changes into params.yaml, as `dvc exp run --set-param` does. Applying them again changes nothing.

    Raises UserError, and leaves params.yaml as it is, if they make settings that contradict each other.
    """
    base = params if changes.experiment is None else experiments / f"{changes.experiment}.yaml"
    text = _changed_text(changes, base)
    settings = config.parse(text, f"{params} with the changes of the form")
    old = params.read_text(encoding="utf-8") if params.exists() else ""
    difference = "".join(
        difflib.unified_diff(old.splitlines(keepends=True), text.splitlines(keepends=True), "before", "params.yaml")
    )
    if not difference:
        return Changed(settings, difference, None)
    kept = REPLACED / f"params-{hashlib.sha256(old.encode()).hexdigest()[:12]}.yaml" if old else None
    if kept is not None:
        write_text(kept, old)
    write_text(params, text)
    return Changed(settings, difference, kept)
