"""The sections `teacher` and `distill`: how the networks are trained."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from rdmd.config.networks import AUGMENTATION_LABELS, ImageNetwork, LogNormal, Network, NoiseDistribution
from rdmd.config.section import (
    Count,
    Fraction,
    Integer,
    Lambda,
    NonNegative,
    Number,
    Positive,
    Section,
    bare_name,
    distinct,
    names_of,
)

# The folder of the feature network that the pipeline trains.
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
    """Squared L2 after a Gaussian blur of `sigma` pixels: keeps the layout of colours, not shapes. Images only."""

    name: Literal["low_pass"]
    sigma: Annotated[Number, Field(gt=0, le=1024)] = 1.0


class FeatureCost(Section):
    """The squared distance of directions in a feature classifier's penultimate layer. Images only.

    `weights` is the folder of a classifier, as `rdmd features` makes it; not the one that the evaluation uses: a metric
    that training optimises measures nothing.
    """

    name: Literal["features"]
    weights: Path


class LPIPS(Section):
    """LPIPS; `weights` is a saved state dict of the lpips package's `LPIPS(net="alex")` or `"vgg"`. Images only."""

    name: Literal["lpips"]
    weights: Path


TransportCost = Annotated[
    SquaredL2 | L1 | Huber | LowPass | FeatureCost | LPIPS,
    Field(discriminator="name"),
    bare_name(
        "name",
        names_of("name", (SquaredL2, L1, Huber, LowPass, FeatureCost, LPIPS)),
        "transport cost",
        "{name: huber, delta: 0.1}",
    ),
]
Decay = Literal["constant", "linear", "cosine"]
Weighting = Literal["unscaled", "inverse_sigma", "inverse_sigma_squared", "normalised"]


class Cadence(Section):
    """The keys that all training runs share. All counts are in optimiser steps."""

    steps: Count
    batch: Count
    checkpoint_every: Count = 100
    log_every: Count = 10
    # Steps between sample grids; 0 for none, not even at the end.
    sample_every: Annotated[Integer, Field(ge=0)] = 200


class Evaluated(Cadence):
    """The keys of the trainings that evaluate their results on the way."""

    # Steps between evaluations on the training split, with one at the end; 0 for none.
    evaluate_every: Annotated[Integer, Field(ge=0)] = 0
    # Samples of an evaluation: outputs, and as many of the target to compare them with.
    evaluate_n: Annotated[Integer, Field(ge=2)] = 256
    # The weights that become the model: those of the last step, or those of the best evaluation.
    keep: Literal["last", "best"] = "last"
    # The training ends after so many evaluations in a row without a new best; null takes all steps.
    patience: Count | None = None

    @model_validator(mode="after")
    def _evaluations_exist(self) -> "Evaluated":
        if self.evaluate_every == 0 and (self.keep == "best" or self.patience is not None):
            key = "patience" if self.patience is not None else "keep"
            raise ValueError(f"`{key}` needs evaluations, but `evaluate_every` is 0; set it to a number of steps")
        return self


class Varied(Evaluated):
    """The keys of the trainings that may vary their images: the teacher's targets, the generator's sources. Unlike
    `teacher.augment` these leak: a varied image counts as one of the domain."""

    # Whether half of the images are mirrored.
    flip: bool = False
    # The largest shift in pixels, up, down, left and right; the pixels at the border are repeated.
    shift: Annotated[Integer, Field(ge=0)] = 0


class Teacher(Varied):
    """Denoising score matching on the target: `min_D E beta ||D(x + sigma eps, sigma) - x||^2`."""

    # What to start from: safetensors (see `rdmd convert-edm`) or, for a network `unet2d`, a diffusers checkpoint, which
    # is a folder or hf:ORG/NAME. null trains from scratch.
    init: Path | None = None
    lr: Positive = 1e-3
    warmup: Annotated[Integer, Field(ge=0)] = 100
    # How the learning rate falls from its value to 0 over the steps, after the warm-up.
    decay: Decay = "constant"
    noise: NoiseDistribution = LogNormal(distribution="lognormal")
    ema: Fraction = 0.999
    # The probability of each of EDM's transforms of a training image, whose labels the network reads, so that samples,
    # which have none, show no trace of them (Karras et al. 2022, appendix F.2). EDM took 0.12 to 0.15.
    augment: Annotated[Number, Field(ge=0, le=1)] = 0.0

    def misfit(self, network: Network) -> str | None:
        """Why `network` takes no augmentation labels, in a sentence; None if it does, or if none are drawn."""
        if not self.augment:
            return None
        value = f"teacher.augment is {self.augment:g}"
        if not isinstance(network, ImageNetwork):
            return f"{value}, but the network {network.kind!r} takes no augmentation labels; set teacher.augment to 0"
        if network.augment_dim != AUGMENTATION_LABELS:
            return (
                f"{value}, but network.augment_dim, the number of its labels, is {network.augment_dim}; set it to "
                f"{AUGMENTATION_LABELS}"
            )
        return None


class LambdaRange(Section):
    """All lambdas between two ends: one generator, which takes lambda as an input.

    Training draws ln(lambda) uniformly, and beyond both ends by `pad` of the range's logarithmic width: without that,
    the ends of the range are learned worst.
    """

    from_: Annotated[Number, Field(gt=0, le=1e6, alias="from")]
    to: Annotated[Number, Field(gt=0, le=1e6)]
    pad: NonNegative = 0.2

    @model_validator(mode="after")
    def _ordered(self) -> "LambdaRange":
        if self.from_ >= self.to:
            raise ValueError(f"`from` must be below `to`, but they are {self.from_:g} and {self.to:g}")
        return self

    @property
    def drawn(self) -> tuple[float, float]:
        """The least and the largest lambda that training draws."""
        margin = (self.to / self.from_) ** self.pad
        return self.from_ / margin, self.to * margin

    @property
    def middle(self) -> float:
        """The geometric mean of the ends, in three significant digits."""
        return float(f"{math.sqrt(self.from_ * self.to):.3g}")

    def spaced(self, n: int) -> list[float]:
        """n >= 2 lambdas from end to end, equally spaced in ln(lambda), those between the ends in two digits; fewer of
        a narrow range, where some have equal digits."""
        ratio = self.to / self.from_
        between = [float(f"{self.from_ * ratio ** (i / (n - 1)):.2g}") for i in range(1, n - 1)]
        return [self.from_, *dict.fromkeys(lam for lam in between if self.from_ < lam < self.to), self.to]

    def __contains__(self, lam: float) -> bool:
        return self.from_ <= lam <= self.to

    def __str__(self) -> str:
        return f"{self.from_:g} to {self.to:g}"


Lambdas = Annotated[
    Annotated[LambdaRange, Tag("range")] | Annotated[list[Lambda], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "range" if isinstance(value, dict | LambdaRange) else "list"),
]
InputNoise = Annotated[
    Annotated[NonNegative, Tag("constant")] | Annotated[tuple[NonNegative, NonNegative], Tag("ends")],
    Discriminator(lambda value: "ends" if isinstance(value, list | tuple) else "constant"),
]


class Distill(Varied):
    """RDMD: `min_G int omega_t KL(p_t^G || p_t^T) dt + lambda E c(x, G(x))`."""

    # A range {from, to}: one generator that takes lambda as an input. A list: a generator for each lambda.
    lambdas: Lambdas
    # Start of the generator; the fake denoiser always starts from the teacher.
    init: Literal["teacher", "scratch"] = "teacher"
    sigma_init: Positive = 1.0
    # The generator reads x + input_noise z, z standard normal, so that a source has many translations; 0 gives a map.
    # For a range of lambda also its values [at from, at to], linear in ln(lambda) between.
    input_noise: InputNoise = 0.0
    # A bare name, or a section with the name and the cost's own keys.
    cost: TransportCost = SquaredL2(name="squared_l2")
    # With preprocess.codec alone: what the cost compares. Pixels need the decoder's passes, and its memory.
    cost_on: Literal["latents", "pixels"] = "latents"
    weighting: Weighting = "unscaled"
    noise: NoiseDistribution = LogNormal(distribution="lognormal")
    # Noise of the fake denoiser; null takes `noise`.
    fake_noise: NoiseDistribution | None = None
    # Noisy samples of the first fake step: `shared` with the generator step, so that one pass of the fake denoiser
    # serves both updates, or its `own`.
    fake_draws: Literal["shared", "own"] = "shared"
    generator_lr: Positive = 3e-4
    fake_lr: Positive = 1e-3
    fake_steps: Count = 1
    # Both learning rates rise over the warm-up, then fall to 0 over the steps of a run as `decay` says.
    warmup: Annotated[Integer, Field(ge=0)] = 0
    decay: Decay = "constant"
    beta1: Fraction = 0.0
    ema: Fraction = 0.99

    @property
    def generators(self) -> list[float] | list[LambdaRange]:
        """The lambda of each generator that is trained, or the range of the one."""
        return [self.lambdas] if isinstance(self.lambdas, LambdaRange) else self.lambdas

    @property
    def described(self) -> str:
        """The lambdas in words: `0.01, 0.1` or `0.01 to 0.5`."""
        return ", ".join(f"{lam:g}" if isinstance(lam, float) else str(lam) for lam in self.generators)

    @model_validator(mode="after")
    def _lambdas_and_their_noise(self) -> "Distill":
        if isinstance(self.lambdas, list):
            distinct(self.lambdas, "lambdas")
            if isinstance(self.input_noise, tuple):
                raise ValueError("`input_noise` has two values, but `lambdas` is a list without ends; give one number")
        return self

    @model_validator(mode="after")
    def _shared_draws_have_the_same_noise(self) -> "Distill":
        if self.fake_draws == "shared" and self.fake_noise:
            raise ValueError(
                "`fake_draws` is shared, its default, so that the fake denoiser sees the noise of "
                "`noise`, but `fake_noise` is given; remove it, or set `fake_draws` to own"
            )
        return self
