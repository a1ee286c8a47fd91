"""The evaluations of a training: samples of the averaged network against the target, on the training split.

The test split stays untouched until the stage `evaluate`, so that its numbers stay honest where a run kept its best
weights. The samples are the same at every evaluation, and no step of the training depends on them.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from rdmd import config
from rdmd.data.sampling import StepRandom
from rdmd.data.transforms import to_uint8
from rdmd.data.view import OpenDomain
from rdmd.distillation.costs import squared_l2
from rdmd.evaluation.classifier import load_feature_network
from rdmd.evaluation.faithfulness import cost
from rdmd.evaluation.features import features_of
from rdmd.evaluation.realism import fid
from rdmd.evaluation.transport import sliced_w2
from rdmd.training.loop import Evaluations, Measured
from rdmd.training.objective import Trial
from rdmd.training.run_config import DistillRun, FeatureInput, TeacherRun

PROJECTIONS = 256
# A distance of 0, whose logarithm does not exist, counts as this.
LEAST = 1e-12

# Samples in the networks' range -> their distance to the target.
Distance = Callable[[Tensor], float]


class Evaluable(Protocol):
    """The objective of a teacher or of a generator."""

    device: torch.device
    batch_size: int

    def trial(self, n: int) -> Trial: ...

    def decoded(self, samples: Tensor) -> Tensor: ...


def evaluations_of(run: TeacherRun | DistillRun, objective: Evaluable, open_domain: OpenDomain) -> Evaluations:
    """The evaluations that the settings of `run` ask for.

    They log `eval_fid` for images and `eval_sw2` for points, and for a generator `eval_cost`, the squared difference as
    in the stage `evaluate`. A generator for a range of lambda is evaluated at the range's ends and middle: each has
    values of its own, such as `eval_fid_0.05`; the values without a lambda are the geometric mean of the distances,
    which decides on the best evaluation, and the mean of the costs. The geometric mean weighs a change by a factor
    equally at every lambda, where the arithmetic one would follow the largest lambda alone. Latents are decoded first,
    those of the target too.
    """
    assert run.features is not None, "this run is not evaluated"
    s, device, batch = run.settings, objective.device, objective.batch_size
    random = StepRandom(0, 0, 0, device)
    reference = open_domain(run.target.path, "train", device).distinct(s.evaluate_n, random, "evaluated target")
    name, distance = _distance(run.features, objective.decoded(reference).cpu(), batch, device)
    trial = objective.trial(s.evaluate_n)
    x = trial.inputs.cpu()
    # Where there are latents; inputs that are noise are compared with nothing.
    seen = objective.decoded(trial.inputs).cpu() if trial.from_source else x

    @torch.no_grad()
    def measure() -> Measured:
        # As many samples at a time as a step of training has, which needs more memory.
        made = [
            torch.cat([objective.decoded(network(part.to(device))).cpu() for part in x.split(batch)])
            for network in trial.networks.values()
        ]
        measured = {name: [distance(y) for y in made]}
        if trial.from_source:
            measured["cost"] = [_cost(seen, y) for y in made]
        return combined(measured, list(trial.networks))

    return Evaluations(s.evaluate_every, s.patience, measure)


def combined(measured: dict[str, list[float]], lambdas: Sequence[float | None]) -> Measured:
    """Distances, which come first, and costs at each lambda, as the values to log and the one that decides."""
    name, *_ = measured
    distance = geometric_mean(measured[name])
    values = {f"eval_{key}": distance if key == name else statistics.fmean(each) for key, each in measured.items()}
    if len(lambdas) > 1:
        for key, each in measured.items():
            values |= {f"eval_{key}_{lam:g}": value for lam, value in zip(lambdas, each, strict=True)}
    return Measured(values, distance)


def geometric_mean(distances: Sequence[float]) -> float:
    """exp of the mean logarithm of distances >= 0."""
    return math.exp(statistics.fmean(math.log(max(distance, LEAST)) for distance in distances))


def _distance(features: FeatureInput, reference: Tensor, batch: int, device: torch.device) -> tuple[str, Distance]:
    """The name of the distance to `reference`, and the distance."""
    if isinstance(features.network, config.NoFeatures):
        return "sw2", lambda samples: sliced_w2(samples, reference, PROJECTIONS, seed=0)
    folder = None if features.weights is None else features.weights.path.parent
    network = load_feature_network(features.network, folder, device)

    def described(samples: Tensor) -> Tensor:
        return features_of(network, to_uint8(samples), batch, device)

    known = described(reference)
    return "fid", lambda samples: fid(described(samples), known)


def _cost(x: Tensor, y: Tensor) -> float:
    return (cost(to_uint8(x), to_uint8(y)) if x.ndim == 4 else squared_l2(x, y)).mean().item()
