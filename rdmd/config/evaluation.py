"""The evaluator."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rdmd.config.base import Count, Positive, Section


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
