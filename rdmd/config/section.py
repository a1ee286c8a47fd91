"""The base class of the sections of params.yaml, and the types of their numbers."""

from collections.abc import Sequence
from typing import Annotated, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A part of params.yaml: unknown keys are errors, and values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)


def not_a_bool(value: object) -> object:
    """Refuse `yes` and `no`, which pydantic would read as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("yes or no stands where a number is needed; give a number")
    return value


def bare_name(key: str, names: Sequence[str], title: str, example: str) -> BeforeValidator:
    """Let a bare name stand for the section `{key: name}`. `title` and the section `example` are for messages."""

    def expand(value: object) -> object:
        if isinstance(value, str):
            if value not in names:
                raise ValueError(
                    f"{value!r} is no {title}; use one of {', '.join(names)}, or a section such as `{example}`"
                )
            return {key: value}
        if not isinstance(value, dict | Section):
            raise ValueError(f"needs a {key} such as `{names[0]}`, or a section such as `{example}`")
        return value

    return BeforeValidator(expand)


def names_of(key: str, sections: Sequence[type[Section]]) -> list[str]:
    """The value of `key` that names each of `sections`."""
    return [str(get_args(section.model_fields[key].annotation)[0]) for section in sections]


def distinct(values: Sequence[float], key: str) -> None:
    """Refuse numbers that are equal in six digits, since the names of models and runs show six digits."""
    if len({f"{value:g}" for value in values}) != len(values):
        raise ValueError(f"each of `{key}` may stand once (six digits count); remove the repeated one")


Number = Annotated[float, BeforeValidator(not_a_bool)]
Integer = Annotated[int, BeforeValidator(not_a_bool)]
Count = Annotated[Integer, Field(ge=1)]
NonNegative = Annotated[Number, Field(ge=0)]
Lambda = Annotated[Number, Field(ge=0, le=1e6)]
Positive = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
