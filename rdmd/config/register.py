"""How the registry decides: which generators it takes, and which of them is the champion."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from rdmd.config.base import Positive, Section


class Constraints(Section):
    """Upper bounds that a champion keeps to, on the numbers of `reports/metrics.json`; null bounds nothing.

    `fid` is for pictures, `sw2` for points; `cost` is the mean over dimensions.
    """

    fid: Positive | None = None
    sw2: Positive | None = None
    cost: Positive | None = None
    seconds_per_image: Positive | None = None


class Knee(Section):
    """The generator nearest to the ideal corner of the front's box."""

    rule: Literal["knee"]


class MostFaithful(Section):
    """The front's end of least cost."""

    rule: Literal["most-faithful"]


class MostRealistic(Section):
    """The front's end of best realism."""

    rule: Literal["most-realistic"]


class CheapestUnder(Section):
    """The smallest cost whose realism keeps to a bound: `fid` for pictures, `sw2` for points."""

    rule: Literal["cheapest-under"]
    fid: Positive | None = None
    sw2: Positive | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "CheapestUnder":
        if (self.fid is None) == (self.sw2 is None):
            raise ValueError("cheapest-under takes one bound; give `fid` (pictures) or `sw2` (points)")
        return self


class MostRealisticUnder(Section):
    """The best realism whose cost keeps to a bound."""

    rule: Literal["most-realistic-under"]
    cost: Positive


_Champion = Knee | MostFaithful | MostRealistic | CheapestUnder | MostRealisticUnder
_BARE = [get_args(kind.model_fields["rule"].annotation)[0] for kind in (Knee, MostFaithful, MostRealistic)]


def _named(given: object) -> object:
    """A bare name stands for a section of that rule and nothing else."""
    if isinstance(given, str):
        if given not in _BARE:
            raise ValueError(f"{given!r} is no rule by itself; use one of {', '.join(_BARE)}, or a section such as "
                             "`{rule: cheapest-under, fid: 20}`")
        return {"rule": given}
    if not isinstance(given, dict | Section):
        raise ValueError("needs a rule such as `knee`, or a section such as `{rule: cheapest-under, fid: 20}`")
    return given


Champion = Annotated[_Champion, Field(discriminator="rule"), BeforeValidator(_named)]


class Register(Section):
    """What is registered, and how the champion is picked from it.

    `front: intervals` keeps a generator unless another is better beyond both their intervals; `front: points` goes by
    the measured values alone.
    """

    front: Literal["intervals", "points"] = "intervals"
    constraints: Constraints = Constraints()
    champion: Champion = Knee(rule="knee")
