"""`rdmd dry-run`: every stage of an experiment for a few steps on a small part of its data, and what the whole takes.

The estimate is measured: the time of a step of each training run, times its steps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from rdmd import config
from rdmd.data.expectations import validate
from rdmd.data.preprocess import preprocess
from rdmd.data.readers import archives, images
from rdmd.data.samples import Sample
from rdmd.diffusion.loss import denoising_loss
from rdmd.evaluation.features import inception_is_here
from rdmd.files import write_text
from rdmd.networks.build import build_denoiser
from rdmd.networks.codec import codec_for, encoder_for
from rdmd.pipeline.evaluation import evaluate
from rdmd.pipeline.features import train_features
from rdmd.pipeline.jobs import beginning
from rdmd.pipeline.launch import TrainingProcesses, gpu_count
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import Watch, train_baselines, train_generators, train_teacher
from rdmd.training.run_config import CUTRun, DistillRun, DomainClassifierRun, NeuralOTRun, TrainingRun
from rdmd.training.run_folder import RunFolder

# Samples of a split that are evaluated (precision and recall need more than three), and steps of a training run: the
# first step is slow, and counts little in 20. A slow network gets fewer of both, to take about this many seconds.
SAMPLES, STEPS, SECONDS = range(4, 65), range(2, 21), 30.0
# On a CPU a batch whose step takes longer is cut, and the time of a step is taken to grow with the batch.
STEP_SECONDS = 10.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cost:
    """What the training runs of one kind take in the whole experiment, by the run of the dry run that was measured."""

    kind: str
    device: str
    step_seconds: float
    measured_batch: int
    batch: int
    steps: int
    peak_mib: float

    @property
    def hours(self) -> float:
        """One run after another."""
        return self.step_seconds * self.batch / self.measured_batch * self.steps / 3600


def dry_run(settings: config.Settings, root: Path, say: Say, watch: Watch) -> list[Cost]:
    """Run every stage in the empty folder `root`, and return what training the whole experiment takes.

    Nothing outside `root` is written. `say` gets a line about each stage and each missing input that is replaced.
    Raises UserError where a stage fails, as it would in the whole experiment.
    """
    # Training processes and model cards need absolute paths.
    layout = Layout(root.resolve())
    dry = shrunk(settings, layout, say)
    text = yaml.safe_dump(dry.model_dump(mode="json", by_alias=True, exclude_unset=True), sort_keys=False)
    write_text(layout.root / "params.yaml", text)
    processes, codec = TrainingProcesses(), encoder_for(dry)
    stages: dict[str, Callable[[], object]] = {
        f"shards of {name}": lambda name=name: preprocess(dry, name, layout.shards / name, codec)
        for name in dry.domains.named
    } | {
        "validate": lambda: validate(dry, layout.shards, layout.validation, layout.reports / "data_docs"),
        "features": lambda: train_features(dry, layout),
        "teacher": lambda: train_teacher(dry, layout, watch, processes),
        "distill": lambda: train_generators(dry, layout, watch, processes),
        "baselines": lambda: train_baselines(dry, layout, watch, processes),
        "evaluate": lambda: evaluate(dry, layout),
    }
    for name, stage in stages.items():
        begun = time.monotonic()
        stage()
        say(f"  {name:<18} {time.monotonic() - begun:7.1f} s")
    return costs(settings, layout)


def shrunk(settings: config.Settings, layout: Layout, say: Say) -> config.Settings:
    """The settings of the dry run: the experiment's networks, losses, stages and ends of lambda, for a few steps."""
    on_gpu = settings.launch.device != "cpu" and gpu_count() > 0
    seconds = _seconds_per_sample(settings, torch.device("cuda" if on_gpu else "cpu"))
    samples = _within(SAMPLES, SECONDS / seconds)
    raw = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def few(batch: int) -> dict[str, int]:
        cut = batch if on_gpu else min(batch, max(2, int(STEP_SECONDS / seconds)))
        steps = _within(STEPS, SECONDS / (seconds * cut))
        return {"steps": steps, "batch": cut, "checkpoint_every": steps, "log_every": 1, "sample_every": 0}

    for name, domain in settings.domains.named.items():
        folder = layout.root / "data" / "raw" / name
        raw["domains"][name] |= _small_part(domain, folder, samples, settings.preprocess, say)
    raw["preprocess"]["test_fraction"] = 0.5
    raw["validation"] = {"min_train": 2, "min_test": 2}
    # The check of so small a feature network would refuse to rank evaluations.
    evaluations = {"evaluate_n": samples, "keep": "last", "patience": None}
    raw["teacher"] |= few(settings.teacher.batch) | evaluations
    init, of_checkpoint = settings.teacher.init, isinstance(settings.network, config.DiffusersNetwork)
    if init is not None and not of_checkpoint and not init.is_file():
        say(f"  teacher.init {init} does not exist: random weights replace it")
        raw["teacher"]["init"] = None
    distill = settings.distill
    raw["distill"] |= few(distill.batch) | evaluations
    if isinstance(distill.lambdas, list):
        raw["distill"]["lambdas"] = sorted({distill.lambdas[0], distill.lambdas[-1]})
    raw["baselines"] = {name: _first(part, few) for name, part in settings.baselines.model_dump(mode="json").items()}
    sizes = ("n_source", "n_reference", "n_transport", "n_w2", "batch")
    raw["evaluate"] |= dict.fromkeys(sizes, samples) | {"bootstrap": 2, "projections": 16}
    features = settings.evaluate.features
    if isinstance(features, config.ClassifierFeatures):
        raw["evaluate"]["features"] |= {"steps": STEPS[-1], "batch": samples}
    elif isinstance(features, config.InceptionFeatures) and not inception_is_here(features.weights):
        say("  InceptionV3's published weights are not here: a small classifier replaces them")
        raw["evaluate"]["features"] = {"network": "classifier", "dim": 16, "steps": STEPS[-1], "batch": samples}
    # Compiling takes longer than all of the dry run.
    raw["launch"] |= {"processes": 1, "parallel": 1, "compile": "off", "accumulate": 1, "runner": "local"}
    if not on_gpu:
        raw["launch"] |= {"device": "cpu", "precision": "float32"}
    return config.Settings.model_validate(raw)


def _seconds_per_sample(settings: config.Settings, device: torch.device) -> float:
    """Seconds of a forward and backward pass of the network for one sample, measured on two."""
    network, shape = settings.network, settings.sample_shape
    if settings.preprocess.codec is not None:
        _, codec = codec_for(settings)
        shape = codec.shape(*shape[1:])
    if isinstance(network, config.DiffusersNetwork):
        network, _ = beginning(network, settings.teacher.init, shape)
    denoiser = build_denoiser(network, shape).to(device)
    x, took = torch.randn(2, *shape, device=device), 0.0
    # The first pass is slow.
    for _ in range(2):
        begun, sigma = time.monotonic(), torch.ones(2, device=device)
        denoising_loss(denoiser, x, sigma, torch.randn_like(x), network.sigma_data).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.monotonic() - begun
    return took / 2


def _within(bounds: range, value: float) -> int:
    return min(max(int(value), bounds[0]), bounds[-1])


def _first(part: Any, few: Callable[[int], dict[str, int]]) -> Any:
    """A baseline's section with the first value of every list, and few steps of training and of sampling."""
    if not isinstance(part, dict):
        return part
    cut = {key: value[:1] if isinstance(value, list) else _first(value, few) for key, value in part.items()}
    if "batch" in part:
        return cut | few(part["batch"])
    return cut | ({"steps": [2] if isinstance(part["steps"], list) else 2} if "steps" in part else {})


def _small_part(
    domain: config.Domain, folder: Path, samples: int, preprocess: config.Preprocess, say: Say
) -> dict[str, Any]:
    """What changes in a domain's section. The first images are copied to `folder`; where there are none, noise is."""
    if isinstance(domain, config.Points | config.Noise | config.Avatars):
        return {"train": 4 * samples, "test": 4 * samples}
    missing = not domain.path.exists()
    if missing:
        say(f"  {domain.path} does not exist: {'bundled digits' if domain.reader == 'mnist' else 'noise'} replaces it")
    if isinstance(domain, config.Digits):
        reader = "digits" if missing else domain.reader
        return {"reader": reader, "limit": 4 * samples, "train_copies": 1, "test_copies": 1}
    # Without a split of its own, half of the domain becomes the test split.
    left: dict[str, int] = {"": 4 * samples} if domain.train is None else {"train": 2 * samples, "test": 2 * samples}
    if missing:
        channels = 3 if preprocess.channels == "auto" else preprocess.channels
        shape, rng = (preprocess.resolution, preprocess.resolution, channels), np.random.default_rng()
        found = ((split, rng.integers(0, 256, shape, dtype=np.uint8)) for split in left for _ in range(4 * samples))
    else:
        form = images.Form(preprocess.channels, preprocess.white)
        read = archives.read if domain.reader == "archive" else images.read
        items = read(domain, f"domains.{folder.name}", form=form).items
        found = ((item.split or "", item.array) for item in items if isinstance(item, Sample))
    for number, (split, image) in enumerate(found):
        if left[split]:
            left[split] -= 1
            (folder / split).mkdir(parents=True, exist_ok=True)
            images.to_pil(image, preprocess.white).save(folder / split / f"{number}.png")
        if not any(left.values()):
            break
    splits = {} if domain.train is None else {"train": "train", "test": "test"}
    return {"reader": "images", "path": str(folder)} | splits


def costs(settings: config.Settings, layout: Layout) -> list[Cost]:
    """What each kind of training run takes in the whole experiment, from the finished runs of the dry run."""
    found: dict[str, Cost] = {}
    for file in sorted(layout.runs.glob("*/run.json")):
        folder = RunFolder(file.parent)
        run, result = folder.read_run(), folder.result()
        assert result is not None, f"{folder.path} is not finished"
        kind, cadence, steps = _whole(settings, run)
        seconds = torch.load(folder.checkpoint, map_location="cpu", weights_only=True, mmap=True)["seconds"]
        cost = Cost(kind, result.device, seconds / result.steps, run.settings.batch, cadence.batch, steps,
                    result.peak_memory_mib)  # fmt: skip
        # Of several runs the quickest: the others were disturbed.
        if kind not in found or cost.step_seconds < found[kind].step_seconds:
            found[kind] = cost
    return list(found.values())


def describe(found: list[Cost]) -> str:
    """The estimate for a person, with what it leaves out."""
    lines = ["ESTIMATE, the measured time of a step times the steps, one run after another on this device:"]
    for cost in found:
        step = cost.step_seconds * cost.batch / cost.measured_batch
        cut = f" (measured at {cost.measured_batch})" if cost.measured_batch < cost.batch else ""
        lines += [
            f"  {cost.kind:<18} {_duration(cost.hours)}: {cost.steps} steps of {step:.3g} s, batch {cost.batch}{cut}",
            f"  {'':<18} peak memory {cost.peak_mib / 1024:.2f} GiB, batch {cost.measured_batch} ({cost.device})",
        ]
    lines.append(f"  {'together':<18} {_duration(sum(cost.hours for cost in found))}")
    return "\n".join([*lines, "Not in it: preprocessing, features, evaluation, checkpoints, compiling, several GPUs."])


def _duration(hours: float) -> str:
    return f"{hours:.3g} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"


def _whole(settings: config.Settings, run: TrainingRun) -> tuple[str, config.Cadence, int]:
    """The kind of a run, its settings in the whole experiment, and the steps of all runs of the kind together."""
    distill, baselines = settings.distill, settings.baselines
    if isinstance(run, DistillRun):
        return "distill", distill, distill.steps * len(distill.generators)
    if isinstance(run, DomainClassifierRun):
        assert baselines.egsde is not None
        return "EGSDE classifier", baselines.egsde.classifier, baselines.egsde.classifier.steps
    if isinstance(run, NeuralOTRun):
        assert baselines.neural_ot is not None
        return "neural OT", baselines.neural_ot, baselines.neural_ot.steps * len(baselines.neural_ot.cost_weights)
    if isinstance(run, CUTRun):
        assert baselines.cut is not None
        return "CUT", baselines.cut, baselines.cut.steps * len(baselines.cut.nce_weights)
    return f"{run.domain} teacher", settings.teacher, settings.teacher.steps
