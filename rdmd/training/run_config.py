"""What a training run is: its resolved settings, its inputs, and the fingerprint of both with the code."""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rdmd import config
from rdmd.files import canonical_json

# The packages that decide what a run's weights become.
TRAINING_CODE = ("networks", "diffusion", "distillation", "training")
BASELINE_CODE = ("baselines",)

# Where things lie, how often they are written down and what is computed twice do not change what is learned.
_NOT_IN_FINGERPRINT = {
    "path", "checkpoint_every", "log_every", "sample_every", "seconds_before", "activation_checkpointing",
}  # fmt: skip


class Shards(config.Section):
    """A domain as an input: where its shards lie, and their digest."""

    path: Path
    digest: str


class Weights(config.Section):
    """Weights as an input: a safetensors file and its SHA-256."""

    path: Path
    sha256: str


class _Run(config.Section):
    experiment: str
    seed: int
    sample_shape: tuple[int, ...]
    network: config.Network
    target: Shards
    precision: Literal["float32", "bf16"]
    processes: int


class TeacherRun(_Run):
    """Train or fine-tune a teacher: the target's, or, for DDIB, the source's, whose shards then stand as `target`."""

    kind: Literal["teacher"] = "teacher"
    domain: Literal["target", "source"] = "target"
    settings: config.Teacher
    compute: config.Compute = config.Compute()
    initial: Weights | None = None


class Start(config.Section):
    """What a continued generator starts from: the end of another run."""

    generator: Weights
    fake: Weights
    # Of the runs that led there, for the account of what a generator took.
    seconds_before: float = 0.0


class DistillRun(_Run):
    """Distil one generator at one lambda."""

    kind: Literal["distill"] = "distill"
    settings: config.Distill
    compute: config.Compute = config.Compute()
    lam: float
    source: Shards
    # DMD: the source is N(0, source_noise^2 I), drawn anew at every step, and its shards are a sample of it.
    source_noise: float | None = None
    teacher: Weights
    # None: from the teacher (or from scratch, as settings.init says).
    start: Start | None = None
    # The weight of c(G_0(x), G(x)) in the place of lambda c(x, G(x)), where G_0 is the generator of `start`.
    proximal: float | None = None
    # Of the network that the transport cost looks through, for the costs that do.
    cost_weights: Weights | None = None


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


TrainingRun = TeacherRun | DistillRun | DomainClassifierRun | NeuralOTRun
_ANY_RUN: TypeAdapter[TrainingRun] = TypeAdapter(Annotated[TrainingRun, Field(discriminator="kind")])


def parse_run(text: str) -> TrainingRun:
    """A run from the text of its `run.json`."""
    return _ANY_RUN.validate_json(text)


def run_name(run: TrainingRun) -> str:
    """What people call it: `teacher`, `lambda-0.1` (`lambda-0.1-coarse-2` where two refinements follow), or what a
    baseline trains: `source-teacher`, `domain-classifier`, `neural-ot-1`."""
    match run:
        case TeacherRun():
            return "teacher" if run.domain == "target" else "source-teacher"
        case DistillRun():
            following = len(run.settings.refine)
            return lambda_name(run.lam) + (f"-coarse-{following}" if following else "")
        case DomainClassifierRun():
            return "domain-classifier"
        case NeuralOTRun():
            return neural_ot_name(run.cost_weight)


def lambda_name(lam: float) -> str:
    """`lambda-0.1`: the name of a generator's folder, run and model."""
    return f"lambda-{lam:g}"


def neural_ot_name(cost_weight: float) -> str:
    """`neural-ot-1`: the name of a neural OT map's folder and run."""
    return f"neural-ot-{cost_weight:g}"


def fingerprint(run: TrainingRun) -> str:
    """16 hex digits that name the run's folder: the same for the same resolved settings, inputs and training code.

    A sweep's list of lambdas, its mode and what refines it are left out: a generator depends on its own lambda,
    settings and start alone. So is the list of cost weights. The code of the baselines counts for runs that train one.
    """
    described = _without(run.model_dump(mode="json"), _NOT_IN_FINGERPRINT)
    if isinstance(run, DistillRun):
        for of_the_sweep in ("lambdas", "sweep", "refine"):
            del described["settings"][of_the_sweep]
        # A path; `cost_weights` holds the hash of what lies there.
        described["settings"]["cost"].pop("weights", None)
    if isinstance(run, TeacherRun):
        # A path; `initial` holds the hash of what lies there.
        del described["settings"]["init"]
    if isinstance(run, NeuralOTRun):
        del described["settings"]["cost_weights"]
    packages = TRAINING_CODE
    if isinstance(run, DomainClassifierRun | NeuralOTRun):
        packages += BASELINE_CODE
    text = canonical_json({"run": described, "code": training_code_digest(packages)})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without(value: object, keys: set[str]) -> object:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return value


@cache
def training_code_digest(packages: tuple[str, ...] = TRAINING_CODE) -> str:
    """SHA-256 of the training code as a syntax tree without docstrings: rewording a comment retrains nothing."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                if documented and ast.get_docstring(node) is not None:
                    node.body = node.body[1:]
            digest.update(f"{file.relative_to(root)}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()
