"""A training run as data: its resolved settings, its inputs, and the fingerprint of both with the code."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from rdmd import config
from rdmd.code_digest import code_digest
from rdmd.files import canonical_json
from rdmd.networks.diffusers_import import CodecFile

# The module of each kind's objective.
_OBJECTIVES = {
    "teacher": "rdmd.training.teacher",
    "distill": "rdmd.training.distill",
    "domain-classifier": "rdmd.training.domain_classifier",
    "neural-ot": "rdmd.training.neural_ot",
    "cut": "rdmd.training.cut",
}

# Paths, how often files are written, and whether activations are computed twice do not change the weights.
_NOT_IN_FINGERPRINT = {
    "path", "checkpoint_every", "log_every", "sample_every", "activation_checkpointing",
}  # fmt: skip


class Shards(config.Section):
    """A domain as an input: where its shards lie, and their digest."""

    path: Path
    digest: str


class Weights(config.Section):
    """Weights as an input: a safetensors file and its SHA-256."""

    path: Path
    sha256: str


class FeatureInput(config.Section):
    """The feature network of a run's evaluations as an input; `weights` are those of a classifier."""

    network: config.Features
    weights: Weights | None = None


class _Run(config.Section):
    experiment: str
    seed: int
    sample_shape: tuple[int, ...]
    network: config.Network
    target: Shards
    precision: Literal["float32", "bf16"]
    processes: int
    # The codec of the samples; None where they are images or points themselves.
    codec: CodecFile | None = None


class TeacherRun(_Run):
    """Train or fine-tune a teacher: the target's, or for DDIB the source's, whose shards are then `target`."""

    kind: Literal["teacher"] = "teacher"
    domain: Literal["target", "source"] = "target"
    settings: config.Teacher
    compute: config.Compute = config.Compute()
    initial: Weights | None = None
    # None where the run is not evaluated.
    features: FeatureInput | None = None


class DistillRun(_Run):
    """Distil one generator, at one lambda or at all of a range."""

    kind: Literal["distill"] = "distill"
    settings: config.Distill
    compute: config.Compute = config.Compute()
    lam: float | config.LambdaRange
    source: Shards
    # DMD: the source is N(0, source_noise^2 I), new at every step; its shards are a sample of it.
    source_noise: float | None = None
    teacher: Weights
    # Weights of the transport cost's network, for costs with one.
    cost_weights: Weights | None = None
    # None where the run is not evaluated.
    features: FeatureInput | None = None


class DomainClassifierRun(_Run):
    """Train the time-dependent domain classifier of EGSDE."""

    kind: Literal["domain-classifier"] = "domain-classifier"
    settings: config.DomainClassifier
    noise: config.NoiseDistribution
    source: Shards


class NeuralOTRun(_Run):
    """Train a neural optimal transport map at one weight of the cost."""

    kind: Literal["neural-ot"] = "neural-ot"
    settings: config.NeuralOT
    cost_weight: float
    source: Shards


class CUTRun(_Run):
    """Train a generator of CUT at one weight of the contrastive loss."""

    kind: Literal["cut"] = "cut"
    settings: config.CUT
    nce_weight: float
    source: Shards


TrainingRun = TeacherRun | DistillRun | DomainClassifierRun | NeuralOTRun | CUTRun
_ANY_RUN: TypeAdapter[TrainingRun] = TypeAdapter(Annotated[TrainingRun, Field(discriminator="kind")])


def parse_run(text: str) -> TrainingRun:
    """A run from the text of its `run.json`."""
    return _ANY_RUN.validate_json(text)


def run_name(run: TrainingRun) -> str:
    """A name for people: `teacher`, `lambda-0.1` or `lambda-0.01-to-0.5`, or a baseline's `source-teacher`,
    `domain-classifier`, `neural-ot-1`, `cut-1`."""
    match run:
        case TeacherRun():
            return "teacher" if run.domain == "target" else "source-teacher"
        case DistillRun():
            return lambda_name(run.lam)
        case DomainClassifierRun():
            return "domain-classifier"
        case NeuralOTRun():
            return neural_ot_name(run.cost_weight)
        case CUTRun():
            return cut_name(run.nce_weight)


def lambda_name(lam: float | config.LambdaRange) -> str:
    """`lambda-0.1` or `lambda-0.01-to-0.5`: the name of a generator's folder, run and model."""
    return f"lambda-{lam:g}" if isinstance(lam, float | int) else f"lambda-{lam.from_:g}-to-{lam.to:g}"


def neural_ot_name(cost_weight: float) -> str:
    """`neural-ot-1`: the name of a neural OT map's folder and run."""
    return f"neural-ot-{cost_weight:g}"


def cut_name(nce_weight: float) -> str:
    """`cut-1`: the name of the folder and run of a generator of CUT."""
    return f"cut-{nce_weight:g}"


def fingerprint(run: TrainingRun) -> str:
    """16 hex digits that name the run's folder, a function of its resolved settings, its inputs and its code.

    A generator depends on its own lambda, and not on the others of a list; nor does a network of neural OT or
    CUT depend on the other weights. The code is that of the run's objective and of the training loop; of an evaluated
    run also that of its evaluations.
    """
    described = _without(run.model_dump(mode="json"), _NOT_IN_FINGERPRINT)
    settings = described["settings"]
    match run:
        case DistillRun():
            del settings["lambdas"]
            # A path; the hash of the file is in `cost_weights`.
            settings["cost"].pop("weights", None)
        case TeacherRun():
            # A path; the hash of the file is in `initial`.
            del settings["init"]
        case NeuralOTRun():
            del settings["cost_weights"]
        case CUTRun():
            del settings["nce_weights"]
    modules: tuple[str, ...] = (_OBJECTIVES[run.kind], "rdmd.training.loop")
    if isinstance(run, TeacherRun | DistillRun):
        if run.features is not None:
            modules += ("rdmd.training.evaluation",)
        else:
            for key in config.Evaluated.model_fields.keys() - config.Cadence.model_fields.keys():
                del settings[key]
    code = code_digest(modules)
    return hashlib.sha256(canonical_json({"run": described, "code": code}).encode()).hexdigest()[:16]


def _without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return value
