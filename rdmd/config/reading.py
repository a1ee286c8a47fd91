"""From the text of a params file to settings, or to one sentence that says what is wrong with it."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rdmd.config.base import Section
from rdmd.config.errors import sentence
from rdmd.config.settings import Settings
from rdmd.errors import UserError

PARAMS = Path("params.yaml")
EXPERIMENTS = Path("experiments")


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error rather than a silent override."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a list or a section stands where a key is needed",
                                                        key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key `{key}` stands twice",
                                                        key_node.start_mark)
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
        raise UserError(f"{path} does not exist here; run this from the project's root, or put an experiment there "
                        "with `rdmd use digits`.") from None
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
