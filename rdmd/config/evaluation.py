"""The sections `evaluate` and `register`: the metrics, and the choice of the generators to register."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from rdmd.config.section import Count, Number, Positive, Section, bare_name


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
    # Bootstrap resamples of the interval of FID (SW2); 0 for no interval.
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

    `fid` is for images, `kid` for those with fewer than 50 test images on a side, `sw2` for points; `cost` is the mean
    over dimensions.
    """

    fid: Positive | None = None
    kid: Positive | None = None
    sw2: Positive | None = None
    cost: Positive | None = None
    seconds_per_image: Positive | None = None


class Champion(Section):
    """The rule that chooses among the generators on the front that keep to the constraints.

    `cheapest-near-best`: the smallest cost whose realism (FID, KID or SW2) is at most `factor` times the best; a
    generator of worse realism than that, such as one of a larger lambda, never changes this choice. `most-faithful` and
    `most-realistic`: the front's ends. `manual`: a person promotes, and the choice of `cheapest-near-best` becomes the
    challenger alone.
    """

    rule: Literal["cheapest-near-best", "most-faithful", "most-realistic", "manual"]
    factor: Annotated[Number, Field(ge=1)] = 2.0

    @model_validator(mode="after")
    def _factor_is_used(self) -> "Champion":
        if self.rule in ("most-faithful", "most-realistic") and self.factor != Champion.model_fields["factor"].default:
            raise ValueError(f"`factor` belongs to the rule cheapest-near-best, not to {self.rule}; remove it")
        return self


_RULES = get_args(Champion.model_fields["rule"].annotation)
_BARE_RULE = bare_name("rule", _RULES, "rule", "{rule: cheapest-near-best, factor: 1.5}")


class Register(Section):
    """Which generator becomes the champion, and whether DVC experiments register theirs."""

    constraints: Constraints = Constraints()
    champion: Annotated[Champion, _BARE_RULE] = Champion(rule="cheapest-near-best")
    # Whether `dvc exp run` registers too.
    experiments: bool = False
