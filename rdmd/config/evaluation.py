"""The sections `evaluate` and `register`: how translations are judged, and which generators are registered."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from rdmd.config.section import Count, Positive, Section


class ClassifierFeatures(Section):
    """A small convolutional classifier trained by the pipeline: on the `features` domain's classes, or, where there
    is none, on telling source from target."""

    network: Literal["classifier"]
    dim: Count = 64
    steps: Count = 600
    batch: Count = 128
    lr: Positive = 2e-3


class InceptionFeatures(Section):
    """InceptionV3 as torch-fidelity has it (2048 features); `weights` is a local file, or null to download."""

    network: Literal["inception"]
    weights: Path | None = None


class EfficientNetLite0Features(Section):
    """EfficientNet-Lite0 with ImageNet weights (1280 features), for photographs of any resolution. Nothing is trained
    or downloaded: the weights are an installed package."""

    network: Literal["efficientnet_lite0"]


class NoFeatures(Section):
    """Points on the plane are their own features."""

    network: Literal["none"]


Features = Annotated[
    ClassifierFeatures | EfficientNetLite0Features | InceptionFeatures | NoFeatures, Field(discriminator="network")
]


class Evaluate(Section):
    """The one evaluator, for generators and baselines alike, on the test split."""

    features: Features
    n_source: Annotated[int, Field(ge=2)] = 512
    n_reference: Annotated[int, Field(ge=2)] = 2000
    # Disjoint samples of the target over which SW2 is averaged: one pair of samples is a noisy yardstick (points only).
    references: Count = 1
    batch: Count = 256
    # Resamples behind the FID interval; 0 gives none.
    bootstrap: Annotated[int, Field(ge=0)] = 200
    # Directions of the sliced Wasserstein distance; points of the exact transport problem (points only).
    projections: Count = 256
    n_transport: Annotated[int, Field(ge=2)] = 2000
    # Points of W2, which is one more exact problem for every method; null takes `n_transport`.
    n_w2: Annotated[int, Field(ge=2)] | None = None
    # The class whose share among the translations is reported (digits only).
    target_class: Annotated[int, Field(ge=0, le=9)] | None = None


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
            raise ValueError(
                f"{given!r} is no rule by itself; use one of {', '.join(_BARE)}, or a section such as "
                "`{rule: cheapest-under, fid: 20}`"
            )
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
