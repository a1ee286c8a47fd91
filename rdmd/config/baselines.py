"""The baselines, each over the grid of its dials (every combination), and the training of those that need some."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from rdmd.config.section import Count, Fraction, Number, Positive, Section, not_a_bool
from rdmd.config.training import Cadence

Steps = Annotated[int, BeforeValidator(not_a_bool), Field(ge=1, le=1000)]
Weight = Annotated[Number, Field(ge=0, le=1e6)]
Factor = Annotated[int, BeforeValidator(not_a_bool), Field(ge=2, le=256)]
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
    """ILVR: sample from noise with the source's low-pass part put in place after every step above `sigma_stops`.

    `factors` divide the resolution. Pictures only.
    """

    factors: Annotated[list[Factor], Field(min_length=1)]
    # 0: down to the last step.
    sigma_stops: Annotated[list[Annotated[Number, Field(ge=0, lt=80)]], Field(min_length=1)] = [0.0]
    steps: Steps = 20


class DomainClassifier(Cadence):
    """EGSDE's domain classifier, which tells source from target at every noise level of `teacher.noise`."""

    steps: Count = 500
    batch: Count = 64
    lr: Positive = 1e-3
    ema: Fraction = 0.99


class EGSDE(Section):
    """EGSDE: SDEdit's SDE under two energies, of weight `repel` (away from the source's domain) and `attract` (to
    the source's low-pass part, down by `factor`, which divides the resolution; of points, to all of the source)."""

    sigmas: NoiseLevels
    repel: Annotated[list[Weight], Field(min_length=1)]
    attract: Annotated[list[Weight], Field(min_length=1)]
    factor: Factor = 4
    steps: Steps = 40
    classifier: DomainClassifier = DomainClassifier()


class DDIB(Section):
    """DDIB: a teacher of the source encodes, the target's decodes, in as many steps each. The source's teacher has the
    settings of `teacher`."""

    steps: Annotated[list[Annotated[Steps, Field(ge=2)]], Field(min_length=1)]


class NeuralOT(Cadence):
    """Neural optimal transport: `sup_f inf_T E w c(x, T(x)) - f(T(x)) + E f(y)`, squared L2 cost.

    A step is one of the potential, after `map_steps` of the map. At the saddle point w only scales f; before it, a
    smaller w lets the potential outweigh the cost sooner. A map is trained for each.
    """

    cost_weights: Annotated[list[Positive], Field(min_length=1)] = [1.0]
    map_lr: Positive = 3e-4
    potential_lr: Positive = 3e-4
    map_steps: Count = 5
    # Weight of a penalty on the potential's slope at the target: damps the game, and draws the map to the identity.
    r1: Weight = 0.0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    beta1: Fraction = 0.0
    ema: Fraction = 0.99

    @model_validator(mode="after")
    def _distinct(self) -> "NeuralOT":
        # As in the names of models and runs, which show six digits.
        if len({f"{weight:g}" for weight in self.cost_weights}) != len(self.cost_weights):
            raise ValueError("each of `cost_weights` may stand once (six digits count); remove the repeated one")
        return self


class Baselines(Section):
    """What the generators are compared with; a baseline that is null is left out."""

    sdedit: SDEdit | None = None
    sdedit_sde: SDEditSDE | None = None
    ilvr: ILVR | None = None
    egsde: EGSDE | None = None
    ddib: DDIB | None = None
    neural_ot: NeuralOT | None = None
