"""The sections `teacher` and `distill`: how the networks are trained."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from rdmd.config.compute import Compute
from rdmd.config.networks import LogNormal, NoiseDistribution
from rdmd.config.runner import LocalRunner, Runner
from rdmd.config.section import Count, Fraction, Lambda, NonNegative, Number, Positive, Section, not_a_bool

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


Decay = Literal["constant", "linear", "cosine"]
Weighting = Literal["unscaled", "inverse_sigma", "inverse_sigma_squared", "normalised"]


class Cadence(Section):
    """What every training run shares. All counts are in optimiser steps."""

    steps: Count
    batch: Count
    checkpoint_every: Count = 100
    log_every: Count = 10
    # Small pictures of what the run makes; 0 for none, not even at its end.
    sample_every: Annotated[int, BeforeValidator(not_a_bool), Field(ge=0)] = 200


class Teacher(Cadence):
    """Denoising score matching on the target: `min_D E beta ||D(x + sigma eps, sigma) - x||^2`."""

    # safetensors to start from (see `rdmd convert-edm`); null trains from scratch.
    init: Path | None = None
    lr: Positive = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 100
    # How the learning rate goes from its value to 0 over the steps, after the warm-up.
    decay: Decay = "constant"
    noise: NoiseDistribution = LogNormal(distribution="lognormal")
    ema: Fraction = 0.999


class Independent(Section):
    """Every lambda starts from the teacher; all of them may train at once."""

    mode: Literal["independent"]


class Continuation(Section):
    """From the largest lambda down: each starts from the generator and the fake denoiser of the one before it.

    The largest takes `distill.steps` steps, every later one `steps`.
    """

    mode: Literal["continuation"]
    steps: Count


Sweep = Annotated[Independent | Continuation, Field(discriminator="mode")]


class Refine(Section):
    """A further run of a generator, continued from where it ended, whose result takes its place. One at a lower rate
    and with the weight on smaller noise gives fine structure; a proximal one removes the bias of lambda."""

    steps: Count
    batch: Count
    generator_lr: Positive
    # Null is that of the sweep.
    fake_lr: Positive | None = None
    # A proximal step: the weight of c(G_0(x), G(x)) in the place of lambda c(x, G(x)), where G_0 is the generator that
    # the run starts from. Null keeps the pull towards x.
    proximal: Positive | None = None
    weighting: Weighting
    noise: NoiseDistribution
    # Of the fake denoiser; null is `noise`.
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
    # What the generator starts from where it continues no other; the fake denoiser starts from the teacher either way.
    init: Literal["teacher", "scratch"] = "teacher"
    sigma_init: Positive = 1.0
    # The generator reads x + input_noise z, z standard normal, so that a source has many translations; 0 is a map. One
    # number, or one for each lambda, in their order.
    input_noise: InputNoise = 0.0
    # A bare name, or a section with the name and the cost's own keys.
    cost: TransportCost = SquaredL2(name="squared_l2")
    weighting: Weighting = "unscaled"
    noise: NoiseDistribution = LogNormal(distribution="lognormal")
    # Of the fake denoiser; null is `noise`.
    fake_noise: NoiseDistribution | None = None
    # What the first fake step of a generator step learns from: the very noised samples that the generator step looks
    # at, so that one pass of the fake denoiser serves both updates, or some of its own.
    fake_draws: Literal["shared", "own"] = "shared"
    generator_lr: Positive = 3e-4
    fake_lr: Positive = 1e-3
    fake_steps: Count = 1
    # Both learning rates rise over the warm-up and go to 0 over the steps of a run as `decay` says.
    warmup: Annotated[int, Field(ge=0)] = 0
    decay: Decay = "constant"
    beta1: Fraction = 0.0
    ema: Fraction = 0.99
    # In their order, each from where the one before ended.
    refine: list[Refine] = []

    @model_validator(mode="after")
    def _distinct(self) -> "Distill":
        # As in the names of models and runs, which show six digits.
        if len({f"{lam:g}" for lam in self.lambdas}) != len(self.lambdas):
            raise ValueError("each of `lambdas` may stand once (six digits count); remove the repeated one")
        if isinstance(self.input_noise, list) and len(self.input_noise) != len(self.lambdas):
            raise ValueError(
                f"`input_noise` has {len(self.input_noise)} entries but `lambdas` {len(self.lambdas)}; "
                "give one number, or one for each lambda"
            )
        return self

    @model_validator(mode="after")
    def _one_distribution_where_draws_are_shared(self) -> "Distill":
        if self.fake_draws == "shared" and (self.fake_noise or any(refine.fake_noise for refine in self.refine)):
            raise ValueError(
                "`fake_draws` is shared, its default, so that the fake denoiser sees the noise of "
                "`noise`, but `fake_noise` is given; remove it, or set `fake_draws` to own"
            )
        return self

    def noise_at(self, lam: float) -> float:
        """The input noise of one lambda's generator."""
        return self.input_noise[self.lambdas.index(lam)] if isinstance(self.input_noise, list) else self.input_noise


class Launch(Compute):
    """Where and how training runs. Nothing here changes what is learned, so none of it is in a fingerprint, except
    `precision`, `processes`, `compile` and `accumulate`, which change how numbers are rounded."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    # Processes (GPUs) of one run.
    processes: Count = 1
    # Runs at once: `auto` is one per GPU (or group of `processes`), or on a CPU as many as have `threads` cores each.
    parallel: Literal["auto"] | Count = "auto"
    # CPU threads of a run; null shares out all cores. For small networks one is best: two would wait for each other.
    threads: Count | None = None
    # A bare name, or a section with the name and the runner's own keys. Ray itself decides how many tasks run at once:
    # each asks it for `processes` GPUs, where there are any, and `threads` CPUs, and `parallel` counts for nothing.
    runner: Runner = LocalRunner(name="local")
