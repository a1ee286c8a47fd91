"""Read `params.yaml` and say what is wrong with it in one sentence that names the key."""

import difflib
import reprlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rdmd.config.section import Section
from rdmd.config.settings import Settings
from rdmd.errors import UserError

# pydantic puts the kind of a section into the path of a key; people did not write it there.
_UNION_TAGS = {
    "images",
    "archive",
    "digits",
    "mnist",
    "points",
    "noise",
    "ddpmpp",
    "mlp",
    "lognormal",
    "karras",
    "classifier",
    "inception",
    "none",
    "squared_l2",
    "l1",
    "huber",
    "low_pass",
    "features",
    "lpips",
    "knee",
    "most-faithful",
    "most-realistic",
    "cheapest-under",
    "most-realistic-under",
    "local",
    "ray",
    "one",
    "each",
}
_UNION_PARENTS = {"source", "target", "features", "network", "noise", "cost", "champion", "runner", "input_noise"}


def sentence(error: ValidationError, known: set[str]) -> str:
    """The problem to mend first, as one sentence with the key's dotted path. `known` is every key of any section."""
    problems = error.errors()
    # A misspelt section is missing under its right name as well, and telling that first would mislead.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    place = [
        part
        for i, part in enumerate(first["loc"])
        if not (i > 0 and part in _UNION_TAGS and first["loc"][i - 1] in _UNION_PARENTS)
    ]
    key = ".".join(str(part) for part in place)
    given = first.get("input")
    more = f" ({len(problems) - 1} more after this one.)" if len(problems) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            name = str(place[-1])
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "remove it."
            if name in known:
                hint = f"`{name}` belongs to another section: move it there, or remove it."
            return f"unknown key `{key}`; {hint}{more}"
        case "missing" | "union_tag_not_found":
            missing = key if first["type"] == "missing" else f"{key}.{_tag_name(place)}"
            return f"the key `{missing}` is missing; add it (`rdmd experiments` lists complete files).{more}"
        case "value_error":
            where = f"`{key}`: " if key else ""
            return f"{where}{first['ctx']['error']!s}.{more}"
        case "union_tag_invalid":
            return (
                f"`{key}.{_tag_name(place)}` is {first['ctx']['tag']!r}; use one of "
                f"{first['ctx']['expected_tags']}.{more}"
            )
        case "model_type" | "model_attributes_type":
            return f"`{key}` is a section: put its keys below it (`rdmd experiments` lists complete files).{more}"
    shown = reprlib.repr(given)
    return f"`{key}` is {shown}: {first['msg'][0].lower()}{first['msg'][1:]}; change it.{more}"


def _tag_name(place: list[Any]) -> str:
    """The key that tells apart the kinds of the section at `place`."""
    if "domains" in place:
        return "reader"
    names = {
        "network": "kind",
        "noise": "distribution",
        "features": "network",
        "cost": "name",
        "champion": "rule",
        "runner": "name",
    }
    return names.get(str(place[-1]), "kind")


PARAMS = Path("params.yaml")
EXPERIMENTS = Path("experiments")


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error rather than a silent override."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or a section stands where a key is needed", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(path: Path = PARAMS) -> Settings:
    """Read and validate a params file.

    Raises `UserError`, one sentence naming the file, the key and the remedy, if the file is missing, is not YAML, or
    holds an unknown key or a value out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist here; run this from the project's root, or put an experiment there "
            "with `rdmd use digits`."
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UserError(f"{path} is not a text file; put an experiment there with `rdmd use digits`.") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Settings:
    """As `load`, from text; `name` stands for the file in error messages."""
    try:
        raw = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(f"{name}{line}: {problem}; correct that line.") from None
    except ValueError as error:
        # Such as a date without its day: YAML's reader leaves those to Python.
        raise UserError(f"{name}: {error}; correct that value.") from None
    if not isinstance(raw, dict):
        raise UserError(f"{name} holds no settings; put an experiment there with `rdmd use digits`.")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{name}: {sentence(error, _known_keys())}") from None


def _known_keys() -> set[str]:
    """Every key that any section knows, for "did you mean"."""
    keys: set[str] = set()
    pending = list(Section.__subclasses__())
    while pending:
        section = pending.pop()
        pending += section.__subclasses__()
        keys |= {field.alias or name for name, field in section.model_fields.items()}
    return keys
