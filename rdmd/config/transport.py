"""The transport cost c(x, y), by name."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from rdmd.config.base import Number, Positive, Section

# Where the pipeline puts its own feature network.
FEATURES = Path("models/features")


class SquaredL2(Section):
    """The mean squared difference: the cost of the theorem."""

    name: Literal["squared_l2"]


class L1(Section):
    """The mean absolute difference."""

    name: Literal["l1"]


class Huber(Section):
    """Squared for differences up to `delta`, linear beyond. Pixels span 2."""

    name: Literal["huber"]
    delta: Positive = 0.1


class LowPass(Section):
    """Squared L2 after a Gaussian blur of `sigma` pixels: the layout of colours is held, shape is free. Images only."""

    name: Literal["low_pass"]
    sigma: Annotated[Number, Field(gt=0, le=1024)] = 1.0


class FeatureCost(Section):
    """The squared distance of directions in a feature classifier's penultimate layer. Images only.

    `weights` is the classifier's folder, as `rdmd features` makes it; by default the evaluation's own.
    """

    name: Literal["features"]
    weights: Path = FEATURES


class LPIPS(Section):
    """LPIPS; `weights` is a saved state dict of the lpips package's `LPIPS(net="alex")` or `"vgg"`. Images only."""

    name: Literal["lpips"]
    weights: Path


_Cost = SquaredL2 | L1 | Huber | LowPass | FeatureCost | LPIPS
_NAMES = [get_args(cost.model_fields["name"].annotation)[0] for cost in get_args(_Cost)]


def _named(given: object) -> object:
    """A bare name stands for a section of that name and nothing else."""
    if isinstance(given, str):
        if given not in _NAMES:
            raise ValueError(f"{given!r} is no transport cost; use one of {', '.join(_NAMES)}")
        return {"name": given}
    if not isinstance(given, dict | Section):
        raise ValueError("needs a name such as `squared_l2`, or a section such as `{name: huber, delta: 0.1}`")
    return given


TransportCost = Annotated[_Cost, Field(discriminator="name"), BeforeValidator(_named)]
