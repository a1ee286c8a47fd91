"""What every section of params.yaml shares, and the numbers that stand in them."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A part of params.yaml: unknown keys are errors and values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def not_a_bool(value: object) -> object:
    """Refuse `yes` and `no`, which pydantic would take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("yes or no stands where a number is needed; give a number")
    return value


Number = Annotated[float, BeforeValidator(not_a_bool)]
Count = Annotated[int, BeforeValidator(not_a_bool), Field(ge=1)]
Lambda = Annotated[float, BeforeValidator(not_a_bool), Field(ge=0, le=1e6)]
NonNegative = Annotated[float, BeforeValidator(not_a_bool), Field(ge=0)]
Positive = Annotated[float, BeforeValidator(not_a_bool), Field(gt=0)]
Fraction = Annotated[float, BeforeValidator(not_a_bool), Field(ge=0, lt=1)]
