"""An experiment's settings cut to a few steps on a few samples, with its networks and its grid's ends as they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdmd import config
from rdmd.dry_run.work import Work


@dataclass(frozen=True)
class Scale:
    """How much of an experiment a dry run does: optimiser steps, the largest batch, samples of each side evaluated."""

    steps: int
    batch: int
    samples: int


# FLOP of the teacher's training, in one step and in all: on one core some ten seconds and half a minute.
CPU_FLOP = (5e11, 1e12)
GPU_FLOP = (5e13, 1e15)
# Of the first step, which is slow on a GPU, more than 30 make little; fewer than 2 would leave nothing but it.
STEPS = range(2, 31)
# A step of distillation has at most two of the fake denoiser's: the first reuses the generator's samples, the second
# makes its own.
FAKE_STEPS = 2
# Precision and recall need more than three.
SAMPLES = range(4, 65)
# Scans kept of bundled digits, and draws of laws on the plane and of noise: enough for both splits, and quick.
SCANS = 200
DRAWS = 200
TEST_FRACTION = 0.4


@dataclass(frozen=True)
class Places:
    """Where a dry run's generated material lies, all below its own folder."""

    root: Path

    @property
    def initial_weights(self) -> Path:
        return self.root / "data" / "raw" / "initial.safetensors"

    def pictures(self, name: str, domain: config.ImageFolder) -> Path:
        """The folder or archive of the domain `name`."""
        return self.root / "data" / "raw" / (f"{name}.zip" if domain.reader == "archive" else name)


def scale_of(settings: config.Settings, work: Work, on_gpu: bool) -> Scale:
    """The experiment's own batch where the device does it in seconds, and otherwise as much as it does."""
    a_step, in_all = GPU_FLOP if on_gpu else CPU_FLOP
    batch = max(2, min(settings.teacher.batch, int(a_step / work.training_flop)))
    steps = int(in_all / work.teacher_flop(batch))
    return Scale(_within(STEPS, steps), batch, _within(SAMPLES, batch))


def _within(bounds: range, value: int) -> int:
    return min(max(value, bounds[0]), bounds[-1])


def shrink(settings: config.Settings, scale: Scale, root: Path, on_gpu: bool) -> config.Settings:
    """The settings of the dry run in the folder `root`: the experiment's networks, losses and stages, `scale` steps."""
    # What the file leaves out stays out: a default may belong to another choice than the one made.
    raw = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
    places = Places(root)
    for name, domain in config_domains(settings).items():
        raw["domains"][name] |= _domain(domain, name, places)
    raw["preprocess"]["test_fraction"] = TEST_FRACTION
    raw["validation"] = {"min_train": 1, "min_test": 2}
    cadence = {
        "steps": scale.steps,
        "batch": min(scale.batch, settings.teacher.batch),
        "checkpoint_every": scale.steps,
        "log_every": 1,
        "sample_every": 0,
    }
    raw["teacher"] |= cadence
    if settings.teacher.init is not None:
        raw["teacher"]["init"] = str(places.initial_weights)
    lambdas = _ends(settings.distill.lambdas)
    raw["distill"] |= cadence | {
        "batch": min(scale.batch, settings.distill.batch),
        "lambdas": lambdas,
        "input_noise": [settings.distill.noise_at(lam) for lam in lambdas],
        "fake_steps": min(FAKE_STEPS, settings.distill.fake_steps),
    }
    few = {"steps": scale.steps, "batch": min(scale.batch, settings.distill.batch)}
    raw["distill"]["refine"] = [refine | few for refine in raw["distill"].get("refine", [])]
    if isinstance(settings.distill.sweep, config.Continuation):
        raw["distill"]["sweep"]["steps"] = scale.steps
    if isinstance(settings.distill.cost, config.FeatureCost) and settings.distill.cost.weights == config.FEATURES:
        raw["distill"]["cost"]["weights"] = str(root / config.FEATURES)
    grids = settings.baselines.model_dump(mode="json")
    raw["baselines"] = {name: _grid(part, scale) for name, part in grids.items()}
    raw["evaluate"] |= _evaluation(settings.evaluate, scale)
    # A compiler takes longer than all of the dry run, whose few samples fit at once.
    raw["launch"] |= {"device": "auto", "processes": 1, "parallel": 1, "compile": "off", "accumulate": 1}
    if not on_gpu:
        raw["launch"]["precision"] = "float32"
    return config.Settings.model_validate(raw)


def config_domains(settings: config.Settings) -> dict[str, config.Domain]:
    """The domains that the experiment has, by name."""
    return {name: domain for name in config.Domains.model_fields if (domain := getattr(settings.domains, name))}


def _domain(domain: config.Domain, name: str, places: Places) -> dict[str, Any]:
    """What changes in a domain's section. MNIST's files give way to the bundled scans, enlarged."""
    match domain:
        case config.ImageFolder():
            return {"path": str(places.pictures(name, domain))}
        case config.Digits():
            return {"reader": "digits", "limit": SCANS, "train_copies": 1, "test_copies": 1}
        case config.Points() | config.Noise():
            return {"train": DRAWS, "test": DRAWS}


def _ends(values: list[float]) -> list[float]:
    return values if len(values) == 1 else [values[0], values[-1]]


def _grid(part: Any, scale: Scale) -> Any:
    """A baseline's section with the first of every dial, few steps and a small batch."""
    if not isinstance(part, dict):
        return part
    few = {"steps": scale.steps, "batch": scale.batch, "map_steps": 2, "checkpoint_every": scale.steps}
    cut = {}
    for key, value in part.items():
        first = value[0] if isinstance(value, list) else value
        least = min(first, few[key]) if key in few and isinstance(first, int) else _grid(first, scale)
        cut[key] = [least] if isinstance(value, list) else least
    return cut | ({"sample_every": 0} if "sample_every" in part else {})


def _evaluation(evaluate: config.Evaluate, scale: Scale) -> dict[str, Any]:
    changed: dict[str, Any] = {
        "n_source": scale.samples,
        "n_reference": scale.samples,
        "batch": scale.batch,
        "references": min(evaluate.references, DRAWS // scale.samples),
        "bootstrap": min(2, evaluate.bootstrap),
        "projections": 16,
        "n_transport": scale.samples,
        "n_w2": None if evaluate.n_w2 is None else scale.samples,
    }
    if isinstance(evaluate.features, config.ClassifierFeatures):
        changed["features"] = evaluate.features.model_dump() | {"steps": scale.steps, "batch": scale.batch}
    return changed
