"""The sections `teacher` and `distill`: how the networks are trained."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from rdmd.config.networks import LogNormal, NoiseDistribution
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

    `weights` is the classifier's folder, as `rdmd features` makes it; by default the evaluation's own.
    """

    name: Literal["features"]
    weights: Path = FEATURES


class LPIPS(Section):
    """LPIPS; `weights` is a saved state dict of the lpips package's `LPIPS(net="alex")` or `"vgg"`. Images only."""

    name: Literal["lpips"]
    weights: Path


_COSTS = (SquaredL2, L1, Huber, LowPass, FeatureCost, LPIPS)
TransportCost = Annotated[
    SquaredL2 | L1 | Huber | LowPass | FeatureCost | LPIPS,
    Field(discriminator="name"),
    bare_name("name", names_of("name", _COSTS), "transport cost", "{name: huber, delta: 0.1}"),
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


class Teacher(Cadence):
    """Denoising score matching on the target: `min_D E beta ||D(x + sigma eps, sigma) - x||^2`."""

    # safetensors to start from (see `rdmd convert-edm`); null trains from scratch.
    init: Path | None = None
    lr: Positive = 1e-3
    warmup: Annotated[Integer, Field(ge=0)] = 100
    # How the learning rate falls from its value to 0 over the steps, after the warm-up.
    decay: Decay = "constant"
    noise: NoiseDistribution = LogNormal(distribution="lognormal")
    ema: Fraction = 0.999


class Independent(Section):
    """Every lambda starts from the teacher, so all lambdas may train at once."""

    mode: Literal["independent"]


class Continuation(Section):
    """From the largest lambda down: each lambda starts from the previous generator and fake denoiser.

    The largest lambda takes `distill.steps` steps, every later lambda `steps`.
    """

    mode: Literal["continuation"]
    steps: Count


Sweep = Annotated[Independent | Continuation, Field(discriminator="mode")]


class Refine(Section):
    """A further run that continues a generator and replaces it. A lower learning rate with more weight on small noise
    gives fine structure; a proximal run removes the bias of lambda."""

    steps: Count
    batch: Count
    generator_lr: Positive
    # Null takes the value of the sweep.
    fake_lr: Positive | None = None
    # A proximal step: the weight of c(G_0(x), G(x)), which replaces lambda c(x, G(x)); G_0 is the generator that the
    # run starts from. Null keeps the cost lambda c(x, G(x)).
    proximal: Positive | None = None
    weighting: Weighting
    noise: NoiseDistribution
    # Noise of the fake denoiser; null takes `noise`.
    fake_noise: NoiseDistribution | None = None
    ema: Fraction = 0.99


InputNoise = Annotated[
    Annotated[NonNegative, Tag("one")] | Annotated[list[NonNegative], Tag("each")],
    Discriminator(lambda given: "each" if isinstance(given, list) else "one"),
]


class Distill(Cadence):
    """RDMD: `min_G int omega_t KL(p_t^G || p_t^T) dt + lambda E c(x, G(x))`, one generator for every lambda."""

    lambdas: Annotated[list[Lambda], Field(min_length=1)]
    sweep: Sweep = Independent(mode="independent")
    # Start of a generator that continues no other; the fake denoiser always starts from the teacher.
    init: Literal["teacher", "scratch"] = "teacher"
    sigma_init: Positive = 1.0
    # The generator reads x + input_noise z, z standard normal, so that a source has many translations; 0 gives a map.
    # A number, or a list with a number for each lambda, in their order.
    input_noise: InputNoise = 0.0
    # A bare name, or a section with the name and the cost's own keys.
    cost: TransportCost = SquaredL2(name="squared_l2")
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
    # Each continues the run before it.
    refine: list[Refine] = []

    @model_validator(mode="after")
    def _distinct(self) -> "Distill":
        distinct(self.lambdas, "lambdas")
        if isinstance(self.input_noise, list) and len(self.input_noise) != len(self.lambdas):
            raise ValueError(
                f"`input_noise` has {len(self.input_noise)} entries but `lambdas` {len(self.lambdas)}; "
                "give one number, or one for each lambda"
            )
        return self

    @model_validator(mode="after")
    def _shared_draws_have_the_same_noise(self) -> "Distill":
        if self.fake_draws == "shared" and (self.fake_noise or any(refine.fake_noise for refine in self.refine)):
            raise ValueError(
                "`fake_draws` is shared, its default, so that the fake denoiser sees the noise of "
                "`noise`, but `fake_noise` is given; remove it, or set `fake_draws` to own"
            )
        return self

    def noise_at(self, lam: float) -> float:
        """The input noise of one lambda's generator."""
        return self.input_noise[self.lambdas.index(lam)] if isinstance(self.input_noise, list) else self.input_noise
