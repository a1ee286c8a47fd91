"""Read `params.yaml`, and explain every problem in it in a sentence that names the key."""

import difflib
import reprlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rdmd.config.settings import Settings
from rdmd.errors import UserError

PARAMS = Path("params.yaml")
EXPERIMENTS = Path("experiments")
# A few lines of YAML can name each other so often that to look at all of them takes years.
MAX_VALUES = 100_000


def sentences(error: ValidationError, raw: dict[str, Any]) -> str:
    """Every problem as a sentence with the key's dotted path and the remedy."""
    problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    # A misspelt section is missing under its right name as well, which would mislead.
    others = [
        problem for problem in problems if problem not in unknown and not (unknown and problem["type"] == "missing")
    ]
    sentences = [_sentence(problem, _place(problem, raw), error.title) for problem in [*unknown, *others]]
    return " ".join(text if text.endswith("?") else f"{text}." for text in sentences)


def _place(problem: ErrorDetails, raw: dict[str, Any]) -> list[str]:
    """The keys that lead to a problem. pydantic adds the names of a union's members, which are not in the file."""
    place: list[str] = []
    current: Any = raw
    for i, part in enumerate(problem["loc"]):
        here = (isinstance(current, dict) and part in current) or (isinstance(current, list) and isinstance(part, int))
        if here:
            current = current[part]
        if here or (problem["type"] == "missing" and i == len(problem["loc"]) - 1):
            place.append(str(part))
    return place


def _sentence(problem: ErrorDetails, place: list[str], section: str) -> str:
    key, context = ".".join(place), problem.get("ctx", {})
    discriminator = str(context.get("discriminator", "")).strip("'")
    match problem["type"]:
        case "extra_forbidden":
            schema = Settings.model_json_schema()
            sections = {"Settings": schema, **schema["$defs"]}
            if any(place[-1] in each.get("properties", {}) for each in sections.values()):
                return f"unknown key `{key}`; `{place[-1]}` belongs to another section: move it there, or remove it"
            known = (_section_at(problem["loc"][:-1], sections[section], sections) or {}).get("properties", {})
            near = difflib.get_close_matches(place[-1], known, n=1)
            return f"unknown key `{key}`; " + (f"did you mean `{near[0]}`?" if near else "remove it")
        case "missing":
            return f"the key `{key}` is missing; add it (`rdmd experiments` lists complete files)"
        case "union_tag_not_found":
            return f"the key `{key}.{discriminator}` is missing; add it (`rdmd experiments` lists complete files)"
        case "value_error":
            return f"`{key}`: {context['error']!s}" if key else str(context["error"])
        case "union_tag_invalid":
            return f"`{key}.{discriminator}` is {reprlib.repr(context['tag'])}; use one of {context['expected_tags']}"
        case "model_type" | "model_attributes_type":
            return f"`{key}` is a section: put its keys below it (`rdmd experiments` lists complete files)"
    return f"`{key}` is {reprlib.repr(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}; change it"


def _section_at(loc: Sequence[int | str], node: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any] | None:
    """The section to which the place `loc` of an error leads from `node` of a JSON schema; None if it finds none."""
    node = sections[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    if not loc:
        return node if "properties" in node else None
    inner = node.get("properties", {}).get(loc[0])
    if inner is not None:
        return _section_at(loc[1:], inner, sections)
    tagged = node.get("discriminator", {}).get("mapping", {}).get(loc[0])
    members = [{"$ref": tagged}] if tagged else [*node.get("oneOf", ()), *node.get("anyOf", ())]
    # pydantic names a union's member in `loc`, except for an optional one.
    return next(
        (found for rest in (loc[1:], loc) for member in members if (found := _section_at(rest, member, sections))), None
    )


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a repeated key is an error, not a silent override."""

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
    except RecursionError:
        raise UserError(f"{name} is nested too deeply; put an experiment there with `rdmd use digits`.") from None
    except (ValueError, LookupError, AttributeError) as error:
        # Such as a date without its day, or the tag of another type: YAML's reader leaves those to Python.
        raise UserError(f"{name}: a value is not of its type ({error}); correct that value.") from None
    pending, count = [raw], 0
    while pending:
        value, count = pending.pop(), count + 1
        if count > MAX_VALUES:
            raise UserError(f"{name} holds more than {MAX_VALUES} values; remove the aliases (`*name`) in it.")
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not isinstance(raw, dict):
        raise UserError(f"{name} holds no settings; put an experiment there with `rdmd use digits`.")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{name}: {sentences(error, raw)}") from None
