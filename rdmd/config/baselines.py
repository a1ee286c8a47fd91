"""The baselines: each is evaluated over the grid of its hyperparameters (every combination)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rdmd.config.section import Count, Fraction, Integer, Number, Positive, Section, distinct
from rdmd.config.training import Cadence

Steps = Annotated[Integer, Field(ge=1, le=1000)]
Weight = Annotated[Number, Field(ge=0, le=1e6)]
Factor = Annotated[Integer, Field(ge=2, le=256)]
NoiseLevels = Annotated[list[Positive], Field(min_length=1)]


class SDEdit(Section):
    """SDEdit: noise the source to sigma_0, integrate the teacher's ODE down to 0 with Heun steps."""

    sigmas: NoiseLevels
    steps: Steps = 10


class SDEditSDE(Section):
    """SDEdit by the reverse SDE, which adds fresh noise on the way down."""

    sigmas: NoiseLevels
    steps: Steps = 20


class ILVR(Section):
    """ILVR: sample from noise, and replace the low-pass part by the source's after every step above `sigma_stops`.

    `factors` divide the resolution. Images only.
    """

    factors: Annotated[list[Factor], Field(min_length=1)]
    # 0 keeps the replacement down to the last step.
    sigma_stops: Annotated[list[Annotated[Number, Field(ge=0, lt=80)]], Field(min_length=1)] = [0.0]
    steps: Steps = 20


class DomainClassifier(Cadence):
    """EGSDE's domain classifier, which tells source from target at every noise level of `teacher.noise`."""

    steps: Count = 500
    batch: Count = 64
    lr: Positive = 1e-3
    ema: Fraction = 0.99


class EGSDE(Section):
    """EGSDE: SDEdit's SDE under two energies.

    `repel` weighs the energy that leads away from the source domain, `attract` the energy that leads to the source's
    low-pass part. `factor` divides the resolution of that part; points use the whole source.
    """

    sigmas: NoiseLevels
    repel: Annotated[list[Weight], Field(min_length=1)]
    attract: Annotated[list[Weight], Field(min_length=1)]
    factor: Factor = 4
    steps: Steps = 40
    classifier: DomainClassifier = DomainClassifier()


class DDIB(Section):
    """DDIB: the source's teacher encodes, the target's teacher decodes, in `steps` steps each. Both teachers have the
    settings of `teacher`."""

    steps: Annotated[list[Annotated[Steps, Field(ge=2)]], Field(min_length=1)]


class NeuralOT(Cadence):
    """Neural optimal transport: `sup_f inf_T E w c(x, T(x)) - f(T(x)) + E f(y)`, squared L2 cost.

    A step updates the map `map_steps` times and then the potential f once. At the saddle point w only scales f; before
    it, a smaller w lets the potential outweigh the cost sooner. Each weight w trains a map.
    """

    cost_weights: Annotated[list[Positive], Field(min_length=1)] = [1.0]
    # Learning rates, map steps and beta1 are those of the public code, which takes 100,000 steps; thousands of steps
    # need learning rates of about 1e-3.
    map_lr: Positive = 1e-4
    potential_lr: Positive = 1e-4
    map_steps: Count = 10
    # Weight of a penalty on the potential's gradient at the target: it stabilises training, and pulls the map towards
    # the identity.
    r1: Weight = 0.0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    beta1: Fraction = 0.9
    ema: Fraction = 0.99

    @model_validator(mode="after")
    def _distinct(self) -> "NeuralOT":
        distinct(self.cost_weights, "cost_weights")
        return self


class CUT(Cadence):
    """CUT: a GAN with a contrastive loss of patches, of weight lambda_NCE. Each weight trains a generator. Images only.

    Learning rate, beta1, patches and embedding are the paper's by default.
    """

    nce_weights: Annotated[list[Positive], Field(min_length=1)] = [1.0]
    lr: Positive = 2e-4
    # Places of an image, in each layer, whose patches are compared.
    patches: Count = 256
    # The width of a patch's embedding: as the layers' channels or wider.
    embedding: Count = 256
    decay: Literal["constant", "linear", "cosine"] = "linear"
    beta1: Fraction = 0.5
    ema: Fraction = 0.99

    @model_validator(mode="after")
    def _distinct(self) -> "CUT":
        distinct(self.nce_weights, "nce_weights")
        return self


class Baselines(Section):
    """The methods that the generators are compared with; a baseline that is null is left out."""

    sdedit: SDEdit | None = None
    sdedit_sde: SDEditSDE | None = None
    ilvr: ILVR | None = None
    egsde: EGSDE | None = None
    ddib: DDIB | None = None
    neural_ot: NeuralOT | None = None
    cut: CUT | None = None
