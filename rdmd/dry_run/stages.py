"""The dry run itself: every stage, one after another, in one folder."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from rdmd import config
from rdmd.data.expectations import validate
from rdmd.data.preprocess import preprocess
from rdmd.data.shards import read_split
from rdmd.dry_run.estimate import Measured, describe, stages
from rdmd.dry_run.materials import make_materials, published_inception_is_here, random_inception
from rdmd.dry_run.shrink import config_domains, scale_of, shrink
from rdmd.dry_run.work import work_of
from rdmd.evaluation.row import Metrics
from rdmd.evaluation.task import ImageFeatures, image_task
from rdmd.files import write_text
from rdmd.pipeline.evaluation import evaluate_on, evaluation_task
from rdmd.pipeline.features import evaluation_device, train_features
from rdmd.pipeline.launch import TrainingProcesses, gpu_count
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import read_card
from rdmd.pipeline.training import Watch, train_baselines, train_sweep, train_teacher
from rdmd.training.run_folder import RunFolder

Say = Callable[[str], None]


@dataclass(frozen=True)
class DryRun:
    """What a dry run found. `metrics` mean nothing but that every stage ran."""

    metrics: Metrics
    estimate: str


def dry_run(settings: config.Settings, root: Path, say: Say, watch: Watch) -> DryRun:
    """Run every stage of an experiment, cut to a few steps on generated material, in the empty folder `root`.

    `say` is called with a line about each stage. Nothing outside `root` is written.
    """
    # The training processes and the cards that they read want one meaning of every path.
    root = root.resolve()
    on_gpu = settings.launch.device != "cpu" and gpu_count() > 0
    work = work_of(settings.network, settings.sample_shape)
    scale = scale_of(settings, work, on_gpu)
    dry, layout = shrink(settings, scale, root, on_gpu), Layout(root)
    text = yaml.safe_dump(dry.model_dump(mode="json", by_alias=True, exclude_unset=True), sort_keys=False)
    write_text(root / "params.yaml", text)

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        say(f"  {name:<10} {time.monotonic() - begun:7.1f} s")

    with stage("materials"):
        make_materials(dry, settings, root, scale.samples)
    with stage("preprocess"):
        for name in config_domains(dry):
            preprocess(dry, name, layout.shards / name)
    with stage("validate"):
        validate(dry, layout.shards, layout.validation, layout.reports / "data_docs")
    with stage("features"):
        train_features(dry, layout)
    with stage("teacher"):
        train_teacher(dry, layout, watch, TrainingProcesses())
    with stage("distill"):
        train_sweep(dry, layout, watch, TrainingProcesses())
    with stage("baselines"):
        train_baselines(dry, layout, watch, TrainingProcesses())
    with stage("evaluate"):
        metrics = _evaluate(dry, layout, say)
    generators = [measured(layout, folder) for folder in sorted(layout.generators.iterdir())]
    # Of several generators the quickest: the others were disturbed.
    every = stages(settings, dry, work, measured(layout, layout.teacher), min(generators, key=lambda m: m.seconds))
    return DryRun(metrics, describe(settings, dry, work, every, on_gpu))


def measured(layout: Layout, model: Path) -> Measured:
    """How long the steps behind a model took, without its checkpoint's writing and its last pictures."""
    run = RunFolder(layout.runs / read_card(model).run)
    result = run.result()
    assert result is not None, f"{run.path} is not finished"
    seconds = torch.load(run.checkpoint, map_location="cpu", weights_only=True, mmap=True)["seconds"]
    return Measured(result.steps, seconds, result.peak_memory_mib, result.device)


def _evaluate(dry: config.Settings, layout: Layout, say: Say) -> Metrics:
    features = dry.evaluate.features
    if not isinstance(features, config.InceptionFeatures) or published_inception_is_here(features):
        return evaluate_on(evaluation_task(dry, layout), dry, layout)
    say("  the InceptionV3 weights are not here: random ones stand in, so that its network runs")
    device = evaluation_device(dry)
    source, target = (read_split(layout.shards / name, "test").data for name in ("source", "target"))
    random = ImageFeatures(random_inception(device, dry.seed))
    return evaluate_on(image_task(source, target, random, dry.evaluate, dry.seed, device), dry, layout)
