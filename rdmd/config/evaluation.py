"""The sections `evaluate` and `register`: the metrics, and the choice of the generators to register."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rdmd.config.section import Count, Number, Positive, Section, bare_name, names_of


class ClassifierFeatures(Section):
    """A small convolutional classifier that the pipeline trains: on the classes of the `features` domain, or without
    such a domain on telling source from target."""

    network: Literal["classifier"]
    dim: Count = 64
    steps: Count = 600
    batch: Count = 128
    lr: Positive = 2e-3


class InceptionFeatures(Section):
    """The InceptionV3 of torch-fidelity (2048 features); `weights` is a local file, or null to download."""

    network: Literal["inception"]
    weights: Path | None = None


class EfficientNetLite0Features(Section):
    """EfficientNet-Lite0 with ImageNet weights (1280 features), for photographs of any resolution. Nothing is trained
    or downloaded: the weights are an installed package."""

    network: Literal["efficientnet_lite0"]
    # Images are resized to this side. A smaller one is faster in proportion to its area, and gives other numbers.
    side: Annotated[int, Field(ge=32, le=512)] = 224


class NoFeatures(Section):
    """Points on the plane are their own features."""

    network: Literal["none"]


Features = Annotated[
    ClassifierFeatures | EfficientNetLite0Features | InceptionFeatures | NoFeatures, Field(discriminator="network")
]


class Evaluate(Section):
    """The evaluation of generators and baselines on the test split."""

    features: Features
    # Lambdas of the range distill.lambdas; null for 8 of them, equally spaced in ln(lambda).
    lambdas: Annotated[list[Positive], Field(min_length=1)] | None = None
    n_source: Annotated[int, Field(ge=2)] = 512
    n_reference: Annotated[int, Field(ge=2)] = 2000
    # Disjoint samples of the target that SW2 is averaged over: one sample gives a noisy estimate (points only).
    references: Count = 1
    batch: Count = 256
    # Bootstrap resamples of the FID interval; 0 for no interval.
    bootstrap: Annotated[int, Field(ge=0)] = 200
    # Directions of the sliced Wasserstein distance; points of the exact transport problem (points only).
    projections: Count = 256
    n_transport: Annotated[int, Field(ge=2)] = 2000
    # Points of W2, a further exact transport problem for every method; null takes `n_transport`.
    n_w2: Annotated[int, Field(ge=2)] | None = None
    # The class whose share among the translations is reported (digits only).
    target_class: Annotated[int, Field(ge=0, le=9)] | None = None


class Constraints(Section):
    """Upper bounds for the champion on the numbers of `reports/metrics.json`; null bounds nothing.

    `fid` is for images, `sw2` for points; `cost` is the mean over dimensions.
    """

    fid: Positive | None = None
    sw2: Positive | None = None
    cost: Positive | None = None
    seconds_per_image: Positive | None = None


class CheapestNearBest(Section):
    """The smallest cost whose realism (FID, or SW2 for points) is at most `factor` times the best realism.

    A generator of worse realism than that, such as one of a larger lambda, never changes this choice.
    """

    rule: Literal["cheapest-near-best"]
    factor: Annotated[Number, Field(ge=1)] = 2.0


class Manual(Section):
    """A person promotes. The rule's choice, which is that of `cheapest-near-best`, becomes the challenger alone."""

    rule: Literal["manual"]


class MostFaithful(Section):
    """The front's end of least cost."""

    rule: Literal["most-faithful"]


class MostRealistic(Section):
    """The front's end of best realism."""

    rule: Literal["most-realistic"]


class CheapestUnder(Section):
    """The smallest cost whose realism stays below a bound: `fid` for images, `sw2` for points."""

    rule: Literal["cheapest-under"]
    fid: Positive | None = None
    sw2: Positive | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "CheapestUnder":
        if (self.fid is None) == (self.sw2 is None):
            raise ValueError("cheapest-under takes one bound; give `fid` (images) or `sw2` (points)")
        return self


class MostRealisticUnder(Section):
    """The best realism whose cost stays below a bound."""

    rule: Literal["most-realistic-under"]
    cost: Positive


Champion = Annotated[
    CheapestNearBest | MostFaithful | MostRealistic | CheapestUnder | MostRealisticUnder | Manual,
    Field(discriminator="rule"),
    bare_name(
        "rule",
        names_of("rule", (CheapestNearBest, MostFaithful, MostRealistic, Manual)),
        "rule by itself",
        "{rule: cheapest-under, fid: 20}",
    ),
]


class Register(Section):
    """Which generator becomes the champion, and whether DVC experiments register theirs."""

    constraints: Constraints = Constraints()
    champion: Champion = CheapestNearBest(rule="cheapest-near-best")
    # Whether `dvc exp run` registers too.
    experiments: bool = False
