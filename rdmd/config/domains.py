"""The domains, and how they are preprocessed and validated."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rdmd.config.section import Count, Fraction, Integer, Number, Positive, Section


def _expanded(path: Path) -> Path:
    return path.expanduser()


DataPath = Annotated[Path, AfterValidator(_expanded)]


class ImageFolder(Section):
    """Images in a folder (nested), or in a zip or tar archive."""

    reader: Literal["images", "archive"]
    path: DataPath
    # Folders below `path` (or inside the archive) when the data set has a split of its own.
    train: str | None = None
    test: str | None = None
    # Whether a test image and its true counterpart in the other domain have the same path below `test`, apart from the
    # suffix. For evaluation alone: training stays unpaired.
    pairs: bool = False

    @model_validator(mode="after")
    def _both_or_none(self) -> "ImageFolder":
        if (self.train is None) != (self.test is None):
            raise ValueError("give both `train` and `test`, or neither (then test_fraction of the samples is held out)")
        if self.pairs and self.test is None:
            raise ValueError("`pairs` needs a test split of its own; name the folders `train` and `test`")
        return self


class Digits(Section):
    """Labelled digits: scikit-learn's bundled 8x8 scans (`digits`), or MNIST's IDX files (`mnist`).

    DVC watches `path`: the folder of IDX files, or, for the bundled digits, the reader itself.
    """

    reader: Literal["digits", "mnist"]
    path: DataPath
    classes: Annotated[list[Annotated[int, Field(ge=0, le=9)]], Field(min_length=1)]
    colour: Literal["grey", "hue"] = "grey"
    # Images made from a scan, each in another hue. The test split has fewer scans, so it may take more copies.
    train_copies: Annotated[int, Field(ge=1, le=360)] = 1
    test_copies: Annotated[int, Field(ge=1, le=360)] = 1
    limit: Count | None = None

    @model_validator(mode="after")
    def _copies_differ(self) -> "Digits":
        if self.colour == "grey" and (self.train_copies, self.test_copies) != (1, 1):
            raise ValueError(
                "several copies of each scan in grey would be equal; set `colour` to hue, or `train_copies` and "
                "`test_copies` to 1"
            )
        return self


class Points(Section):
    """Samples of a distribution on the plane: `gaussian` is N(mean, covariance); docs/method.md defines the others."""

    reader: Literal["points"]
    path: DataPath
    law: Literal["gaussian", "eight_gaussians", "swissroll"]
    train: Count = 20_000
    test: Count = 10_000
    # For `gaussian` alone; the default is N(0, I).
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
    """N(0, std^2 I) in the experiment's sample shape, images or points: the source of DMD.

    Training draws new noise at every step. The shards hold `train` and `test` draws; evaluation uses those of `test`.
    DVC watches `path`, the reader itself.
    """

    reader: Literal["noise"]
    path: DataPath
    # As distill.sigma_init: G(z) = D(z, std) reads z at its own noise level.
    std: Positive = 80.0
    train: Count = 1000
    test: Count = 1000


class Avatars(Section):
    """Portraits rendered in a drawn style (rdmd/data/readers/avatars.py). Training portraits differ between domains;
    the test split of every domain shows the same ones, so each source has its true counterpart.

    DVC watches `path`, the reader itself.
    """

    reader: Literal["avatars"]
    path: DataPath
    style: Literal["toon-head", "personas"]
    train: Count = 3000
    test: Count = 500


DomainName = Literal["source", "target", "features"]
Domain = Annotated[ImageFolder | Digits | Points | Noise | Avatars, Field(discriminator="reader")]


class Domains(Section):
    """`source` and `target`, and optionally `features`, on which the feature classifier is trained."""

    source: Domain
    target: Domain
    features: Domain | None = None

    @model_validator(mode="after")
    def _counterparts(self) -> "Domains":
        source, target = self.source, self.target
        if isinstance(source, Avatars) and isinstance(target, Avatars) and source.test > target.test:
            raise ValueError(
                f"domains.source.test is {source.test} but domains.target.test is {target.test}, so some sources would "
                "have no true counterpart; make them equal"
            )
        return self

    @property
    def named(self) -> dict[DomainName, Domain]:
        """The domains that this experiment has, by name."""
        named: dict[DomainName, Domain] = {"source": self.source, "target": self.target}
        return named if self.features is None else {**named, "features": self.features}


class Preprocess(Section):
    """How the samples of a reader become samples of one size, split into train and test."""

    kind: Literal["images", "points"]
    resolution: Annotated[int, Field(ge=4, le=1024)] = 64
    # `random_crop` stores `crops` squares of each training image that is not square, spread over its longer side. Each
    # is a training sample, so that long images weigh more than square ones.
    fit: Literal["crop", "pad", "random_crop"] = "crop"
    crops: Annotated[int, Field(ge=1, le=360)] = 8
    # 1 keeps grey images, of 8 or 16 bits, and makes colours grey; 3 makes RGB of 8 bits; `auto` is 1 where every image
    # of a domain is grey, and 3 elsewhere. Source and target must come out alike.
    channels: Literal[1, 3, "auto"] = 3
    # What is white in grey images of 16 bits; null is 65535. A camera of 12 bits has 4095.
    white: Annotated[int, Field(ge=1, le=65535)] | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    # An autoencoder of diffusers, a folder or hf:ORG/NAME: the networks then see latents, which shards hold beside the
    # images.
    codec: Annotated[str, Field(min_length=1)] | None = None
    max_broken_fraction: Fraction = 0.01
    samples_per_shard: Count = 1024


class Validation(Section):
    """The least number of samples that each domain needs."""

    min_train: Count = 100
    # FID needs two samples on both sides.
    min_test: Annotated[Integer, Field(ge=2)] = 20
