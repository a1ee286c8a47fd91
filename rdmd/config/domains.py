"""The domains, and how they are preprocessed and validated."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from rdmd.config.section import Count, Fraction, Number, Positive, Section, not_a_bool


class ImageFolder(Section):
    """Pictures in a folder (nested; jpg, png, webp, bmp, tif), or in a zip or tar archive."""

    reader: Literal["images", "archive"]
    path: Path
    # Folders below `path` (or inside the archive) when the data set has a split of its own.
    train: str | None = None
    test: str | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> "ImageFolder":
        if (self.train is None) != (self.test is None):
            raise ValueError("give both `train` and `test`, or neither (then test_fraction of the samples is held out)")
        return self


class Digits(Section):
    """Labelled digits: scikit-learn's bundled 8x8 scans (`digits`), or MNIST's IDX files (`mnist`).

    `path` is what DVC watches: the folder of IDX files, or, for the bundled digits, the reader itself.
    """

    reader: Literal["digits", "mnist"]
    path: Path
    classes: Annotated[list[Annotated[int, Field(ge=0, le=9)]], Field(min_length=1)]
    colour: Literal["grey", "hue"] = "grey"
    # Pictures made of one scan, each in another hue; train and test apart, since test scans are fewer.
    train_copies: Annotated[int, Field(ge=1, le=360)] = 1
    test_copies: Annotated[int, Field(ge=1, le=360)] = 1
    limit: Count | None = None


class Points(Section):
    """A law on the plane, sampled: `gaussian` is N(mean, covariance), the others as docs/method.md defines them."""

    reader: Literal["points"]
    path: Path
    law: Literal["gaussian", "eight_gaussians", "swissroll"]
    train: Count = 20_000
    test: Count = 10_000
    # Of the law `gaussian`; it is N(0, I) unless they are given.
    mean: tuple[Number, Number] = (0.0, 0.0)
    covariance: tuple[tuple[Number, Number], tuple[Number, Number]] = ((1.0, 0.0), (0.0, 1.0))

    @model_validator(mode="after")
    def _moments_fit(self) -> "Points":
        (a, b), (c, d) = self.covariance
        if b != c or a <= 0 or a * d <= b * b:
            raise ValueError("`covariance` must be symmetric and positive definite, such as [[2.0, 0.5], [0.5, 1.0]]")
        standard = self.mean == (0, 0) and self.covariance == ((1, 0), (0, 1))
        if self.law != "gaussian" and not standard:
            raise ValueError(f"`mean` and `covariance` belong to the law `gaussian`, not to {self.law!r}; remove them")
        return self


class Noise(Section):
    """N(0, std^2 I) of the experiment's sample shape, for pictures and points alike: the source of DMD.

    Training draws anew at every step. `train` and `test` are how many draws the shards hold: those of `test` are
    what evaluation is given. `path` is what DVC watches, the reader itself.
    """

    reader: Literal["noise"]
    path: Path
    # As distill.sigma_init: G(z) = D(z, std) reads z at its own noise level.
    std: Positive = 80.0
    train: Count = 1000
    test: Count = 1000


Domain = Annotated[ImageFolder | Digits | Points | Noise, Field(discriminator="reader")]


class Domains(Section):
    """`source` and `target`; `features`, if given, is what the feature classifier learns from."""

    source: Domain
    target: Domain
    features: Domain | None = None


class Preprocess(Section):
    """From whatever a reader gives to samples of one size, split and sharded."""

    kind: Literal["images", "points"]
    resolution: Annotated[int, Field(ge=4, le=1024)] = 64
    fit: Literal["crop", "pad"] = "crop"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    max_broken_fraction: Fraction = 0.01
    samples_per_shard: Count = 1024


class Validation(Section):
    """What Great Expectations asks of each domain."""

    min_train: Count = 100
    # FID needs two samples on both sides.
    min_test: Annotated[int, BeforeValidator(not_a_bool), Field(ge=2)] = 20
